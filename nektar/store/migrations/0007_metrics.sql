-- Metrics, in the tables that the OpenTelemetry Collector's ClickHouse exporter makes (since its version 0.160),
-- so that Grafana and a stock Collector work with them as they are. Added: comments, and windows in which a
-- message that comes twice is seen.

CREATE TABLE IF NOT EXISTS `otel_metrics_gauge` (
  `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Who measured; nektar.sender is whose token brought it, and alone is not only said by the sender',
  `ResourceSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the resource\'s attributes mean',
  `ScopeName` String CODEC(ZSTD(1)) COMMENT 'Library that measured',
  `ScopeVersion` String CODEC(ZSTD(1)) COMMENT 'Its version',
  `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'What else is said of it',
  `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)) COMMENT 'How many of its attributes were dropped',
  `ScopeSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the other attributes mean',
  `ServiceName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'service.name of the resource',
  `MetricName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'What was measured',
  `MetricDescription` String CODEC(ZSTD(1)) COMMENT 'The same in words',
  `MetricUnit` String CODEC(ZSTD(1)) COMMENT 'Unit, as UCUM writes it',
  `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Which series of the metric it is; numbers, lists and maps as JSON writes them',
  `StartTimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'Since when it counts, by the clock of whoever sent it; 1970: not said',
  `TimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'When it was measured, by that clock',
  `Value` Float64 CODEC(ZSTD(1)) COMMENT 'What was measured; 0 where nothing is said',
  `Flags` UInt32 CODEC(ZSTD(1)) COMMENT '1: there is no value',
  `Exemplars` Nested (
    `FilteredAttributes` Map(LowCardinality(String), String),
    `TimeUnix` DateTime,
    `Value` Float64,
    `SpanId` String,
    `TraceId` String
  ) CODEC(ZSTD(1)) COMMENT 'Measurements that stand for others, and the spans that they were made in',
  INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_time_minmax TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Data points of gauges: what something is now';

CREATE TABLE IF NOT EXISTS `otel_metrics_sum` (
  `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Who measured; nektar.sender is whose token brought it, and alone is not only said by the sender',
  `ResourceSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the resource\'s attributes mean',
  `ScopeName` String CODEC(ZSTD(1)) COMMENT 'Library that measured',
  `ScopeVersion` String CODEC(ZSTD(1)) COMMENT 'Its version',
  `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'What else is said of it',
  `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)) COMMENT 'How many of its attributes were dropped',
  `ScopeSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the other attributes mean',
  `ServiceName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'service.name of the resource',
  `MetricName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'What was measured',
  `MetricDescription` String CODEC(ZSTD(1)) COMMENT 'The same in words',
  `MetricUnit` String CODEC(ZSTD(1)) COMMENT 'Unit, as UCUM writes it',
  `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Which series of the metric it is; numbers, lists and maps as JSON writes them',
  `StartTimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'Since when it counts, by the clock of whoever sent it; 1970: not said',
  `TimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'When it was measured, by that clock',
  `Value` Float64 CODEC(ZSTD(1)) COMMENT 'What was measured; 0 where nothing is said',
  `Flags` UInt32 CODEC(ZSTD(1)) COMMENT '1: there is no value',
  `Exemplars` Nested (
    `FilteredAttributes` Map(LowCardinality(String), String),
    `TimeUnix` DateTime,
    `Value` Float64,
    `SpanId` String,
    `TraceId` String
  ) CODEC(ZSTD(1)) COMMENT 'Measurements that stand for others, and the spans that they were made in',
  `AggregationTemporality` Int32 CODEC(ZSTD(1)) COMMENT '1: of the time since StartTimeUnix alone, which the next one follows; 2: of all since then; 0: not said',
  `IsMonotonic` Bool CODEC(Delta(1), ZSTD(1)) COMMENT 'Whether it only grows',
  INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_time_minmax TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Data points of sums: how much something has come to';

CREATE TABLE IF NOT EXISTS `otel_metrics_histogram` (
  `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Who measured; nektar.sender is whose token brought it, and alone is not only said by the sender',
  `ResourceSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the resource\'s attributes mean',
  `ScopeName` String CODEC(ZSTD(1)) COMMENT 'Library that measured',
  `ScopeVersion` String CODEC(ZSTD(1)) COMMENT 'Its version',
  `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'What else is said of it',
  `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)) COMMENT 'How many of its attributes were dropped',
  `ScopeSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the other attributes mean',
  `ServiceName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'service.name of the resource',
  `MetricName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'What was measured',
  `MetricDescription` String CODEC(ZSTD(1)) COMMENT 'The same in words',
  `MetricUnit` String CODEC(ZSTD(1)) COMMENT 'Unit, as UCUM writes it',
  `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Which series of the metric it is; numbers, lists and maps as JSON writes them',
  `StartTimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'Since when it counts, by the clock of whoever sent it; 1970: not said',
  `TimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'When it was measured, by that clock',
  `Count` UInt64 CODEC(Delta(8), ZSTD(1)) COMMENT 'How many measurements it is of',
  `Sum` Float64 CODEC(ZSTD(1)) COMMENT 'Their sum; 0 where it is not said',
  `BucketCounts` Array(UInt64) CODEC(ZSTD(1)) COMMENT 'How many are in each bucket; one more than bounds',
  `ExplicitBounds` Array(Float64) CODEC(ZSTD(1)) COMMENT 'Upper bounds of the buckets, inclusive; of the last there is none',
  `Exemplars` Nested (
    `FilteredAttributes` Map(LowCardinality(String), String),
    `TimeUnix` DateTime,
    `Value` Float64,
    `SpanId` String,
    `TraceId` String
  ) CODEC(ZSTD(1)) COMMENT 'Measurements that stand for others, and the spans that they were made in',
  `Flags` UInt32 CODEC(ZSTD(1)) COMMENT '1: there is no value',
  `Min` Float64 CODEC(ZSTD(1)) COMMENT 'The least of them; 0 where it is not said',
  `Max` Float64 CODEC(ZSTD(1)) COMMENT 'The largest; 0 where it is not said',
  `AggregationTemporality` Int32 CODEC(ZSTD(1)) COMMENT '1: of the time since StartTimeUnix alone, which the next one follows; 2: of all since then; 0: not said',
  INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_time_minmax TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Data points of histograms: how measurements are spread over given buckets';

CREATE TABLE IF NOT EXISTS `otel_metrics_exponential_histogram` (
  `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Who measured; nektar.sender is whose token brought it, and alone is not only said by the sender',
  `ResourceSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the resource\'s attributes mean',
  `ScopeName` String CODEC(ZSTD(1)) COMMENT 'Library that measured',
  `ScopeVersion` String CODEC(ZSTD(1)) COMMENT 'Its version',
  `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'What else is said of it',
  `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)) COMMENT 'How many of its attributes were dropped',
  `ScopeSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the other attributes mean',
  `ServiceName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'service.name of the resource',
  `MetricName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'What was measured',
  `MetricDescription` String CODEC(ZSTD(1)) COMMENT 'The same in words',
  `MetricUnit` String CODEC(ZSTD(1)) COMMENT 'Unit, as UCUM writes it',
  `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Which series of the metric it is; numbers, lists and maps as JSON writes them',
  `StartTimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'Since when it counts, by the clock of whoever sent it; 1970: not said',
  `TimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'When it was measured, by that clock',
  `Count` UInt64 CODEC(Delta(8), ZSTD(1)) COMMENT 'How many measurements it is of',
  `Sum` Float64 CODEC(ZSTD(1)) COMMENT 'Their sum; 0 where it is not said',
  `Scale` Int32 CODEC(ZSTD(1)) COMMENT 'Each bucket\'s upper bound is the one before times 2^(2^-Scale)',
  `ZeroCount` UInt64 CODEC(ZSTD(1)) COMMENT 'How many are zero, or too near to it',
  `PositiveOffset` Int32 CODEC(ZSTD(1)) COMMENT 'Index of the first bucket of positive ones',
  `PositiveBucketCounts` Array(UInt64) CODEC(ZSTD(1)) COMMENT 'How many are in each bucket of positive ones',
  `NegativeOffset` Int32 CODEC(ZSTD(1)) COMMENT 'Index of the first bucket of negative ones',
  `NegativeBucketCounts` Array(UInt64) CODEC(ZSTD(1)) COMMENT 'How many are in each bucket of negative ones, by their size',
  `Exemplars` Nested (
    `FilteredAttributes` Map(LowCardinality(String), String),
    `TimeUnix` DateTime,
    `Value` Float64,
    `SpanId` String,
    `TraceId` String
  ) CODEC(ZSTD(1)) COMMENT 'Measurements that stand for others, and the spans that they were made in',
  `Flags` UInt32 CODEC(ZSTD(1)) COMMENT '1: there is no value',
  `Min` Float64 CODEC(ZSTD(1)) COMMENT 'The least of them; 0 where it is not said',
  `Max` Float64 CODEC(ZSTD(1)) COMMENT 'The largest; 0 where it is not said',
  `AggregationTemporality` Int32 CODEC(ZSTD(1)) COMMENT '1: of the time since StartTimeUnix alone, which the next one follows; 2: of all since then; 0: not said',
  INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_time_minmax TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Data points of exponential histograms: how measurements are spread over buckets that grow';

CREATE TABLE IF NOT EXISTS `otel_metrics_summary` (
  `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Who measured; nektar.sender is whose token brought it, and alone is not only said by the sender',
  `ResourceSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the resource\'s attributes mean',
  `ScopeName` String CODEC(ZSTD(1)) COMMENT 'Library that measured',
  `ScopeVersion` String CODEC(ZSTD(1)) COMMENT 'Its version',
  `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'What else is said of it',
  `ScopeDroppedAttrCount` UInt32 CODEC(ZSTD(1)) COMMENT 'How many of its attributes were dropped',
  `ScopeSchemaUrl` String CODEC(ZSTD(1)) COMMENT 'What the other attributes mean',
  `ServiceName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'service.name of the resource',
  `MetricName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'What was measured',
  `MetricDescription` String CODEC(ZSTD(1)) COMMENT 'The same in words',
  `MetricUnit` String CODEC(ZSTD(1)) COMMENT 'Unit, as UCUM writes it',
  `Attributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Which series of the metric it is; numbers, lists and maps as JSON writes them',
  `StartTimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'Since when it counts, by the clock of whoever sent it; 1970: not said',
  `TimeUnix` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'When it was measured, by that clock',
  `Count` UInt64 CODEC(Delta(8), ZSTD(1)) COMMENT 'How many measurements it is of',
  `Sum` Float64 CODEC(ZSTD(1)) COMMENT 'Their sum; 0 where it is not said',
  `ValueAtQuantiles` Nested (
    `Quantile` Float64,
    `Value` Float64
  ) CODEC(ZSTD(1)) COMMENT 'Quantiles from 0 to 1, and their values',
  `Flags` UInt32 CODEC(ZSTD(1)) COMMENT '1: there is no value',
  INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_key mapKeys(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_attr_value mapValues(Attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_time_minmax TimeUnix TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree PARTITION BY toDate(TimeUnix)
ORDER BY (ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Data points of summaries: quantiles of measurements, as who measured made them';
