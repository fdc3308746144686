-- Forgeries: who brought signatures that were not those of whom it said.

CREATE TABLE IF NOT EXISTS `forgeries_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `brought_by` String COMMENT 'The sender',
  `duties` UInt64 COMMENT 'Duties to which it brought a wrong response, signed with another key or none',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `brought_by`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'How often a sender of telemetry brought signatures that were not those of whom it said.';
