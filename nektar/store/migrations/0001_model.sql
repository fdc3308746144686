-- The model's tables. Columns are documented in the comments; the model is nektar/model.py.

CREATE TABLE IF NOT EXISTS `generations_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `generation` UInt32 COMMENT 'Generation of the Network\'s log',
  `bus` String COMMENT 'Bus that holds this generation\'s log',
  `stands` Bool COMMENT 'Whether it has caught up: views show the highest one that has',
  `calls` LowCardinality(String) COMMENT 'Of which blocks it takes calls: all or with_events; empty: not known',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `generation`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Logs of each Network';

CREATE TABLE IF NOT EXISTS `blocks_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `number` UInt64 COMMENT 'Block number',
  `hash` FixedString(32) COMMENT 'Hash of the header, recomputed',
  `parent` FixedString(32) COMMENT 'Hash of the parent block',
  `time` DateTime('UTC') COMMENT 'The block\'s own time',
  `level` LowCardinality(String) COMMENT 'How well it was checked: proved, linked or reported',
  `provider` LowCardinality(String) COMMENT 'Provider that served it, by its name in nektar.yaml',
  `anchor` LowCardinality(String) COMMENT 'What makes it canonical: single:…, quorum m/n or pinned',
  `generation` UInt32 COMMENT 'Generation of the log that brought it',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `hash_hex` String ALIAS concat('0x', lower(hex(`hash`))) COMMENT 'hash as 0x…',
  `parent_hex` String ALIAS concat('0x', lower(hex(`parent`))) COMMENT 'parent as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `number`, `hash`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Blocks of the Network\'s chain; one that is here has all its events and calls in the store';

CREATE TABLE IF NOT EXISTS `gaps_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `first` UInt64 COMMENT 'First block that is missing',
  `last` UInt64 COMMENT 'Last block that is missing',
  `why` String COMMENT 'Why the log goes on without them',
  `generation` UInt32 COMMENT 'Generation of the log that brought it',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `first`, `last`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Blocks in the scope of a Network\'s log that no provider could serve';

CREATE TABLE IF NOT EXISTS `tasks_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `task_hash` FixedString(32) COMMENT 'Identity of the task; no fork can reuse it',
  `number` UInt64 COMMENT 'Task number of the contract; a label, reused after a reorg',
  `type` FixedString(32) COMMENT 'Task type, as whitelisted in the registry',
  `input` String COMMENT 'The task\'s input: a decimal for a number, 0x… for bytes',
  `set_hash` FixedString(32) COMMENT 'OperatorSet that the task committed to',
  `submitter` FixedString(20) COMMENT 'Who submitted it',
  `submitted_block` UInt64 COMMENT 'Block of the submission',
  `deadline_unit` LowCardinality(String) COMMENT 'block, timestamp or epoch',
  `deadline` UInt64 COMMENT 'Last block (or time, or epoch) at which a response counts',
  `grace` UInt64 COMMENT 'How long after the deadline an attestation still counts as late',
  `state` LowCardinality(String) COMMENT 'open, responded, challenged, expired or cancelled',
  `response_digest` FixedString(32) COMMENT 'Digest of the response that was accepted, challenged since or not; zero: none',
  `response_block` UInt64 COMMENT 'Block in which it was accepted; 0: none',
  `challenge_deadline` UInt64 COMMENT 'Last block (or time, or epoch) at which it can be challenged; 0: no response',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `task_hash_hex` String ALIAS concat('0x', lower(hex(`task_hash`))) COMMENT 'task_hash as 0x…',
  `type_hex` String ALIAS concat('0x', lower(hex(`type`))) COMMENT 'type as 0x…',
  `set_hash_hex` String ALIAS concat('0x', lower(hex(`set_hash`))) COMMENT 'set_hash as 0x…',
  `submitter_hex` String ALIAS concat('0x', lower(hex(`submitter`))) COMMENT 'submitter as 0x…',
  `response_digest_hex` String ALIAS concat('0x', lower(hex(`response_digest`))) COMMENT 'response_digest as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `task_hash`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'One Task and how it stands.';

CREATE TABLE IF NOT EXISTS `duties_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `task_hash` FixedString(32) COMMENT 'Identity of the task',
  `operator` FixedString(20) COMMENT 'The Operator that owes the response',
  `task_number` UInt64 COMMENT 'Task number of the contract',
  `task_input` String COMMENT 'The task\'s input: a decimal for a number, 0x… for bytes',
  `state` LowCardinality(String) COMMENT 'excused, signed, late, pending, unknown or missed',
  `deadline` UInt64 COMMENT 'Last block at which a response counts',
  `grace` UInt64 COMMENT 'Blocks after the deadline in which an attestation is late',
  `decided_block` UInt64 COMMENT 'Block whose content put the duty in this state',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `task_hash_hex` String ALIAS concat('0x', lower(hex(`task_hash`))) COMMENT 'task_hash as 0x…',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `task_hash`, `operator`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'One Duty = (task, operator), decided from the chain alone.';

CREATE TABLE IF NOT EXISTS `operators_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `operator` FixedString(20) COMMENT 'The Operator\'s address',
  `bls_key` FixedString(64) COMMENT 'Registered BLS key: BN254 G1, x then y',
  `region` LowCardinality(String) COMMENT 'Declared region',
  `validators` UInt32 COMMENT 'Declared validator count',
  `stake` UInt256 COMMENT 'Stake in the newest OperatorSet, all positions, in wei',
  `in_set` Bool COMMENT 'Whether the newest OperatorSet holds it',
  `registered_block` UInt64 COMMENT 'Block of the (last) registration',
  `deregistered_block` UInt64 COMMENT 'First block without duties for new tasks; 0: none',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…',
  `bls_key_hex` String ALIAS concat('0x', lower(hex(`bls_key`))) COMMENT 'bls_key as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `operator`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'One Operator as the registry knows it.';

CREATE TABLE IF NOT EXISTS `progress_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `processor` LowCardinality(String) COMMENT 'Name of the fold',
  `block_number` UInt64 COMMENT 'Newest block folded',
  `block_hash` FixedString(32) COMMENT 'Its hash',
  `stands` Bool COMMENT 'False: its generation of the log was still catching up',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `block_hash_hex` String ALIAS concat('0x', lower(hex(`block_hash`))) COMMENT 'block_hash as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `processor`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'How far a processor has folded the log: the newest block whose consequences are all put out.';

CREATE TABLE IF NOT EXISTS `findings_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `id` FixedString(32) COMMENT 'Hash of condition, network, subject and key facts',
  `condition` LowCardinality(String) COMMENT 'Name of the condition',
  `operator` FixedString(20) COMMENT 'The Operator it is about',
  `task_hash` FixedString(32) COMMENT 'The task it is about; zero where there is none',
  `task_number` UInt64 COMMENT 'Task number of the contract',
  `task_input` String COMMENT 'The task\'s input: a decimal for a number, 0x… for bytes',
  `block_number` UInt64 COMMENT 'Newest block that its claims rest on',
  `block_hash` FixedString(32) COMMENT 'Hash of that block',
  `block_time` DateTime('UTC') COMMENT 'Time of that block',
  `level` LowCardinality(String) COMMENT 'Lowest check level of the blocks under it',
  `anchor` LowCardinality(String) COMMENT 'What makes those blocks canonical',
  `facts` String COMMENT 'Key facts as canonical JSON: what the claims are gathered from',
  `status` LowCardinality(String) COMMENT 'seen, safe, final or retracted',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `id_hex` String ALIAS concat('0x', lower(hex(`id`))) COMMENT 'id as 0x…',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…',
  `task_hash_hex` String ALIAS concat('0x', lower(hex(`task_hash`))) COMMENT 'task_hash as 0x…',
  `block_hash_hex` String ALIAS concat('0x', lower(hex(`block_hash`))) COMMENT 'block_hash as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `id`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'A condition that holds for a subject.';

CREATE TABLE IF NOT EXISTS `duties_history_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `task_hash` FixedString(32) COMMENT 'Identity of the task',
  `operator` FixedString(20) COMMENT 'The Operator that owes the response',
  `task_number` UInt64 COMMENT 'Task number of the contract',
  `task_input` String COMMENT 'The task\'s input: a decimal for a number, 0x… for bytes',
  `state` LowCardinality(String) COMMENT 'excused, signed, late, pending, unknown or missed',
  `deadline` UInt64 COMMENT 'Last block at which a response counts',
  `grace` UInt64 COMMENT 'Blocks after the deadline in which an attestation is late',
  `decided_block` UInt64 COMMENT 'Block whose content put the duty in this state',
  `position` UInt32 COMMENT 'Place of the row in its record',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `task_hash_hex` String ALIAS concat('0x', lower(hex(`task_hash`))) COMMENT 'task_hash as 0x…',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…'
)
ENGINE = ReplacingMergeTree ORDER BY (`network`, `task_hash`, `operator`, `version`, `position`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'One Duty = (task, operator), decided from the chain alone. Every version ever put out, undone ones included.';

CREATE TABLE IF NOT EXISTS `findings_history_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `id` FixedString(32) COMMENT 'Hash of condition, network, subject and key facts',
  `condition` LowCardinality(String) COMMENT 'Name of the condition',
  `operator` FixedString(20) COMMENT 'The Operator it is about',
  `task_hash` FixedString(32) COMMENT 'The task it is about; zero where there is none',
  `task_number` UInt64 COMMENT 'Task number of the contract',
  `task_input` String COMMENT 'The task\'s input: a decimal for a number, 0x… for bytes',
  `block_number` UInt64 COMMENT 'Newest block that its claims rest on',
  `block_hash` FixedString(32) COMMENT 'Hash of that block',
  `block_time` DateTime('UTC') COMMENT 'Time of that block',
  `level` LowCardinality(String) COMMENT 'Lowest check level of the blocks under it',
  `anchor` LowCardinality(String) COMMENT 'What makes those blocks canonical',
  `facts` String COMMENT 'Key facts as canonical JSON: what the claims are gathered from',
  `status` LowCardinality(String) COMMENT 'seen, safe, final or retracted',
  `position` UInt32 COMMENT 'Place of the row in its record',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `id_hex` String ALIAS concat('0x', lower(hex(`id`))) COMMENT 'id as 0x…',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…',
  `task_hash_hex` String ALIAS concat('0x', lower(hex(`task_hash`))) COMMENT 'task_hash as 0x…',
  `block_hash_hex` String ALIAS concat('0x', lower(hex(`block_hash`))) COMMENT 'block_hash as 0x…'
)
ENGINE = ReplacingMergeTree ORDER BY (`network`, `id`, `version`, `position`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'A condition that holds for a subject. Every version ever put out, undone ones included.';

CREATE TABLE IF NOT EXISTS `task_events_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `task_hash` FixedString(32) COMMENT 'The task',
  `block_hash` FixedString(32) COMMENT 'Hash of the block that holds it',
  `log_index` UInt32 COMMENT 'Place of its log in the block',
  `block_number` UInt64 COMMENT 'Number of that block',
  `block_time` DateTime('UTC') COMMENT 'Time of that block',
  `kind` LowCardinality(String) COMMENT 'submitted, responded, attested, challenged or cancelled',
  `operator` FixedString(20) COMMENT 'The Operator that did it; zero: none by itself',
  `detail` String COMMENT 'What else the event says, as canonical JSON',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `task_hash_hex` String ALIAS concat('0x', lower(hex(`task_hash`))) COMMENT 'task_hash as 0x…',
  `block_hash_hex` String ALIAS concat('0x', lower(hex(`block_hash`))) COMMENT 'block_hash as 0x…',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `task_hash`, `block_hash`, `log_index`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Something that befell a Task on the chain.';
