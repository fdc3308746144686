-- The evidence for findings, and what the slashing contract said to their proofs.

CREATE TABLE IF NOT EXISTS `evidence_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `id` FixedString(32) COMMENT 'The finding that it is for',
  `condition` LowCardinality(String) COMMENT 'Name of the condition that it proves',
  `operator` FixedString(20) COMMENT 'The Operator that it is about',
  `block_number` UInt64 COMMENT 'Newest block that the finding rests on',
  `block_hash` FixedString(32) COMMENT 'Hash of that block',
  `sha256` FixedString(32) COMMENT 'Digest of the bundle',
  `size` UInt64 COMMENT 'Its length in bytes',
  `bundle` String COMMENT 'The bundle, canonical JSON, as `nektar verify` takes it',
  `missing` String COMMENT 'Why there is none; empty: there is',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `id_hex` String ALIAS concat('0x', lower(hex(`id`))) COMMENT 'id as 0x…',
  `operator_hex` String ALIAS concat('0x', lower(hex(`operator`))) COMMENT 'operator as 0x…',
  `block_hash_hex` String ALIAS concat('0x', lower(hex(`block_hash`))) COMMENT 'block_hash as 0x…',
  `sha256_hex` String ALIAS concat('0x', lower(hex(`sha256`))) COMMENT 'sha256 as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `id`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'The evidence for a finding, whole: whoever has it needs nobody\'s word (docs/EVIDENCE.md).';

CREATE TABLE IF NOT EXISTS `dry_runs_rows` (
  `network` LowCardinality(String) COMMENT 'Network that it belongs to',
  `id` FixedString(32) COMMENT 'The finding',
  `block_number` UInt64 COMMENT 'Block on whose state it was run',
  `block_hash` FixedString(32) COMMENT 'Hash of that block',
  `provider` LowCardinality(String) COMMENT 'Provider that ran it; of a refusal, all that did',
  `accepted` Bool COMMENT 'Whether the contract accepted the proof',
  `gas` UInt64 COMMENT 'What it would have cost; 0: not accepted, or not said',
  `revert` String COMMENT 'Why the contract refused it, as the provider said',
  `version` UInt64 COMMENT 'Generation of the log << 48 | offset of the record',
  `is_deleted` UInt8 COMMENT '1: taken back by an undo',
  `id_hex` String ALIAS concat('0x', lower(hex(`id`))) COMMENT 'id as 0x…',
  `block_hash_hex` String ALIAS concat('0x', lower(hex(`block_hash`))) COMMENT 'block_hash as 0x…'
)
ENGINE = ReplacingMergeTree(version, is_deleted) ORDER BY (`network`, bitShiftRight(`version`, 48), `id`, `block_hash`)
SETTINGS non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'What the slashing contract said to a finding\'s proof, asked without sending anything.';
