-- Slashings: what became of each request.

CREATE TABLE IF NOT EXISTS `slashings_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `slasher` FixedString(20) COMMENT 'The contract that was asked',
  `request` FixedString(32) COMMENT 'Name of the request, that contract\'s own',
  `operator` FixedString(20) COMMENT 'Who is to be slashed',
  `condition` LowCardinality(String) COMMENT 'What it is said to be for: 0x… for a hash',
  `task_hash` FixedString(32) COMMENT 'The task it is said to be about; zero: none',
  `proved` Bool COMMENT 'Whether the contract checked a proof; else a word was enough',
  `authority` FixedString(20) COMMENT 'Whose word it rests on; zero: not said',
  `unit` LowCardinality(String) COMMENT 'Of the amounts: wei, or wad for parts in 10^18',
  `asked` UInt256 COMMENT 'Amount asked for, of all kinds of collateral together',
  `taken` UInt256 COMMENT 'Amount taken, of all kinds of collateral together',
  `receiver` FixedString(20) COMMENT 'Who got it, or is to; zero: not said',
  `state` LowCardinality(String) COMMENT 'requested, vetoed, executed, expired, void or unknown',
  `votes` UInt64 COMMENT 'Votes of the committee to overrule it',
  `votes_needed` UInt64 COMMENT 'So many overrule it; 0: not known',
  `deadline_unit` LowCardinality(String) COMMENT 'block, timestamp or epoch',
  `veto_deadline` UInt64 COMMENT 'Last block (or time, or epoch) at which a veto counts',
  `veto_time` DateTime('UTC') COMMENT 'About when that is; 1970: not known',
  `execution_deadline` UInt64 COMMENT 'Last block (or time, or epoch) at which it can be executed; 0: none',
  `execution_time` DateTime('UTC') COMMENT 'About when that is; 1970: not known',
  `captured` UInt64 COMMENT 'When the stake is of; executing one of later stake voids this; 0: not said',
  `requested_block` UInt64 COMMENT 'Block of the request',
  `decided_block` UInt64 COMMENT 'Block whose content put it in this state',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `slasher_hex` String ALIAS concat('0x', lower(hex(`slasher`))) COMMENT 'slasher as 0x…',
  `request_hex` String ALIAS concat('0x', lower(hex(`request`))) COMMENT 'request as 0x…',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…',
  `task_hash_hex` String ALIAS concat('0x', lower(hex(`task_hash`))) COMMENT 'task_hash as 0x…',
  `authority_hex` String ALIAS concat('0x', lower(hex(`authority`))) COMMENT 'authority as 0x…',
  `receiver_hex` String ALIAS concat('0x', lower(hex(`receiver`))) COMMENT 'receiver as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `slasher`, `request`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'One request to slash, and what became of it.';

CREATE TABLE IF NOT EXISTS `slashings_history_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `slasher` FixedString(20) COMMENT 'The contract that was asked',
  `request` FixedString(32) COMMENT 'Name of the request, that contract\'s own',
  `operator` FixedString(20) COMMENT 'Who is to be slashed',
  `condition` LowCardinality(String) COMMENT 'What it is said to be for: 0x… for a hash',
  `task_hash` FixedString(32) COMMENT 'The task it is said to be about; zero: none',
  `proved` Bool COMMENT 'Whether the contract checked a proof; else a word was enough',
  `authority` FixedString(20) COMMENT 'Whose word it rests on; zero: not said',
  `unit` LowCardinality(String) COMMENT 'Of the amounts: wei, or wad for parts in 10^18',
  `asked` UInt256 COMMENT 'Amount asked for, of all kinds of collateral together',
  `taken` UInt256 COMMENT 'Amount taken, of all kinds of collateral together',
  `receiver` FixedString(20) COMMENT 'Who got it, or is to; zero: not said',
  `state` LowCardinality(String) COMMENT 'requested, vetoed, executed, expired, void or unknown',
  `votes` UInt64 COMMENT 'Votes of the committee to overrule it',
  `votes_needed` UInt64 COMMENT 'So many overrule it; 0: not known',
  `deadline_unit` LowCardinality(String) COMMENT 'block, timestamp or epoch',
  `veto_deadline` UInt64 COMMENT 'Last block (or time, or epoch) at which a veto counts',
  `veto_time` DateTime('UTC') COMMENT 'About when that is; 1970: not known',
  `execution_deadline` UInt64 COMMENT 'Last block (or time, or epoch) at which it can be executed; 0: none',
  `execution_time` DateTime('UTC') COMMENT 'About when that is; 1970: not known',
  `captured` UInt64 COMMENT 'When the stake is of; executing one of later stake voids this; 0: not said',
  `requested_block` UInt64 COMMENT 'Block of the request',
  `decided_block` UInt64 COMMENT 'Block whose content put it in this state',
  `position` UInt32 COMMENT 'Place of the row in its record',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `slasher_hex` String ALIAS concat('0x', lower(hex(`slasher`))) COMMENT 'slasher as 0x…',
  `request_hex` String ALIAS concat('0x', lower(hex(`request`))) COMMENT 'request as 0x…',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…',
  `task_hash_hex` String ALIAS concat('0x', lower(hex(`task_hash`))) COMMENT 'task_hash as 0x…',
  `authority_hex` String ALIAS concat('0x', lower(hex(`authority`))) COMMENT 'authority as 0x…',
  `receiver_hex` String ALIAS concat('0x', lower(hex(`receiver`))) COMMENT 'receiver as 0x…'
)
ENGINE = ReplacingMergeTree ORDER BY (`network`, `slasher`, `request`, `version`, `position`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'One request to slash, and what became of it. Every version ever put out, undone ones included.';
