-- Service levels: how Operators' Duties went lately, and what Networks wish.

CREATE TABLE IF NOT EXISTS `service_windows_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `operator` FixedString(20) COMMENT 'The Operator\'s address',
  `eligible_5m` UInt256 COMMENT 'Stake of its duties of the last 5 minutes that were signed, late or missed, in wei',
  `eligible_30m` UInt256 COMMENT 'Stake of its duties of the last 30 minutes that were signed, late or missed, in wei',
  `eligible_1h` UInt256 COMMENT 'Stake of its duties of the last hour that were signed, late or missed, in wei',
  `eligible_6h` UInt256 COMMENT 'Stake of its duties of the last 6 hours that were signed, late or missed, in wei',
  `eligible_3d` UInt256 COMMENT 'Stake of its duties of the last 3 days that were signed, late or missed, in wei',
  `eligible_30d` UInt256 COMMENT 'Stake of its duties of the last 30 days that were signed, late or missed, in wei',
  `failed_5m` UInt256 COMMENT 'Stake of its duties of the last 5 minutes that were late or missed, in wei',
  `failed_30m` UInt256 COMMENT 'Stake of its duties of the last 30 minutes that were late or missed, in wei',
  `failed_1h` UInt256 COMMENT 'Stake of its duties of the last hour that were late or missed, in wei',
  `failed_6h` UInt256 COMMENT 'Stake of its duties of the last 6 hours that were late or missed, in wei',
  `failed_3d` UInt256 COMMENT 'Stake of its duties of the last 3 days that were late or missed, in wei',
  `failed_30d` UInt256 COMMENT 'Stake of its duties of the last 30 days that were late or missed, in wei',
  `missed_6h` UInt64 COMMENT 'Duties missed in the last 6 hours',
  `misses_left` Int64 COMMENT 'So many more it can miss before one more meets missed_duty; -1: terms are not told',
  `time` DateTime('UTC') COMMENT 'Time of the block with which any of this changed last',
  `meets_time` DateTime('UTC') COMMENT 'About when missed_duty is met if it goes on as in the last 6 hours; 1970: not in that way',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `operator`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'How the Duties of one Operator went, in windows of the chain\'s own time.';

CREATE TABLE IF NOT EXISTS `objectives` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `objective` Float64 COMMENT 'Share of stake that is to be on time over 30 days, as nektar.yaml says',
  `version` UInt64 COMMENT 'How often it has been said otherwise'
)
ENGINE = ReplacingMergeTree(version) ORDER BY network
COMMENT 'What each Network wishes of its Operators: service levels are held against it';
