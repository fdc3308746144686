-- What bulk reading says of itself (the model is nektar/coverage.py), and what the tables of ABIs were made of.

CREATE TABLE IF NOT EXISTS `coverage_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `kind` LowCardinality(String) COMMENT 'What of the blocks: logs or calls',
  `first` UInt64 COMMENT 'First block',
  `last` UInt64 COMMENT 'Last block',
  `filter` FixedString(32) COMMENT 'Hash of chain, contracts and events that were asked for',
  `chain_id` UInt64 COMMENT 'Chain that they are of',
  `level` LowCardinality(String) COMMENT 'How well they were checked: proved or reported',
  `provider` LowCardinality(String) COMMENT 'Provider that served them',
  `anchor` LowCardinality(String) COMMENT 'What makes them canonical',
  `parent` FixedString(32) COMMENT 'Parent\'s hash of the first block; zero where only reported',
  `hash` FixedString(32) COMMENT 'Hash of the last block; zero where only reported',
  `rows` UInt64 COMMENT 'How many rows they hold, those that could not be read among them',
  `checked` DateTime('UTC') COMMENT 'When',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `filter_hex` String ALIAS concat('0x', lower(hex(`filter`))) COMMENT 'filter as 0x…',
  `parent_hex` String ALIAS concat('0x', lower(hex(`parent`))) COMMENT 'parent as 0x…',
  `hash_hex` String ALIAS concat('0x', lower(hex(`hash`))) COMMENT 'hash as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `kind`, `first`, `last`, `filter`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Blocks of which everything that was asked for is in the store, and how well that was checked.';

CREATE TABLE IF NOT EXISTS `undecoded_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `block_number` UInt64 COMMENT 'Block that holds it',
  `block_hash` FixedString(32) COMMENT 'Hash of that block',
  `tx_index` UInt32 COMMENT 'Place of the transaction in the block',
  `log_index` UInt32 COMMENT 'Place of the log in the block',
  `address` FixedString(20) COMMENT 'The contract that emitted it',
  `topics` String COMMENT 'Its topics, 0x… each',
  `data` String COMMENT 'Its data, 0x…',
  `reason` String COMMENT 'Why it can\'t be read',
  `filter` FixedString(32) COMMENT 'Hash of chain, contracts and events that were asked for',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `block_hash_hex` String ALIAS concat('0x', lower(hex(`block_hash`))) COMMENT 'block_hash as 0x…',
  `address_hex` String ALIAS concat('0x', lower(hex(`address`))) COMMENT 'address as 0x…',
  `filter_hex` String ALIAS concat('0x', lower(hex(`filter`))) COMMENT 'filter as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `block_number`, `block_hash`, `log_index`, `filter`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'A log of the contracts that their ABI can\'t have made, whole.';

CREATE TABLE IF NOT EXISTS `dissent_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `lie` LowCardinality(String) COMMENT 'Read in bulk: omitted, altered, invented, or wrong block; of a Network: contradiction, or other final block',
  `block_number` UInt64 COMMENT 'Block that it was told of',
  `block_hash` FixedString(32) COMMENT 'Hash of that block; of a wrong or other one, the hash that was told; zero: none',
  `log_index` Int64 COMMENT 'Place of the log in the block; -1: all of the block',
  `filter` FixedString(32) COMMENT 'Hash of chain, contracts and events that were asked for',
  `provider` LowCardinality(String) COMMENT 'Provider that reported it',
  `proved_by` LowCardinality(String) COMMENT 'Provider that served the proof, or quorum; empty: none had to',
  `found` DateTime('UTC') COMMENT 'When it was found out',
  `why` String COMMENT 'What differed, where that is known',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `block_hash_hex` String ALIAS concat('0x', lower(hex(`block_hash`))) COMMENT 'block_hash as 0x…',
  `filter_hex` String ALIAS concat('0x', lower(hex(`filter`))) COMMENT 'filter as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `block_number`, `block_hash`, `log_index`, `filter`, `provider`, `lie`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'What a provider said that can\'t be: no row of it stands.';

CREATE TABLE IF NOT EXISTS `abi_entries` (
  `number` UInt32 COMMENT 'Place in the order in which the tables were made',
  `name` String COMMENT 'The table',
  `entry` String COMMENT 'The event or function of an ABI that the table is of, as JSON'
)
ENGINE = ReplacingMergeTree ORDER BY name
COMMENT 'What each table of an event or a call was made of: its views follow from that';
