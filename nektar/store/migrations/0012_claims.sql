-- Claims: one run at a time reads in bulk under a name (indexer/claim.py).

CREATE TABLE IF NOT EXISTS `claims` (
  `network` String COMMENT 'Name that is claimed',
  `run` String COMMENT 'Run that claims it',
  `process` String COMMENT 'Process that the run is in',
  `first` UInt64 COMMENT 'First block that it reads',
  `last` UInt64 COMMENT 'Last block that it reads',
  `until` DateTime('UTC') COMMENT 'When the claim lapses, unless it is renewed',
  `version` UInt64 COMMENT 'The highest stands',
  `is_deleted` UInt8 COMMENT '1: given back, or taken away'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, `run`)
COMMENT 'Which run reads in bulk under a name: one at a time';
