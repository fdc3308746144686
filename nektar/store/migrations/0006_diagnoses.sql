-- Diagnoses: why a duty was not done in time.

CREATE TABLE IF NOT EXISTS `diagnoses_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `task_hash` FixedString(32) COMMENT 'Identity of the task',
  `operator` FixedString(20) COMMENT 'The Operator that owed the response',
  `task_number` UInt64 COMMENT 'Task number of the contract',
  `task_input` String COMMENT 'The task\'s input: a decimal for a number, 0x… for bytes',
  `state` LowCardinality(String) COMMENT 'The duty\'s: late, unknown or missed',
  `cause` LowCardinality(String) COMMENT 'offline, none_reported, clock, wrong_result, slow_execution, network, aggregator_dropped or unexplained',
  `stage` LowCardinality(String) COMMENT 'The step of the work at which it went wrong',
  `blame` LowCardinality(String) COMMENT 'Whose it is: operator, aggregator or nobody',
  `told_by` String COMMENT 'Senders whose word it rests on, separated by commas',
  `spans` String COMMENT 'Ids of the spans that it rests on, in hex, separated by spaces',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `task_hash_hex` String ALIAS concat('0x', lower(hex(`task_hash`))) COMMENT 'task_hash as 0x…',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `task_hash`, `operator`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Why a Duty was not done in time, as telemetry tells it: an explanation, and no fact.';
