-- Telemetry, in the tables that the OpenTelemetry Collector's ClickHouse exporter makes, so that Grafana's
-- trace view and a stock Collector work with them as they are. Added: comments, and windows in which a message
-- that comes twice is seen.

CREATE TABLE IF NOT EXISTS `otel_traces` (
  `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)) COMMENT 'When the span began, by the clock of whoever sent it',
  `TraceId` String CODEC(ZSTD(1)) COMMENT 'Trace, in hex; that of a Task follows from the Task',
  `SpanId` String CODEC(ZSTD(1)) COMMENT 'Span, in hex',
  `ParentSpanId` String CODEC(ZSTD(1)) COMMENT 'Span that it is part of, in hex; empty: none',
  `TraceState` String CODEC(ZSTD(1)) COMMENT 'W3C tracestate',
  `SpanName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'What was done',
  `SpanKind` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Unspecified, Internal, Server, Client, Producer or Consumer',
  `ServiceName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'service.name of the resource',
  `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Who did it; nektar.sender is whose token brought it, and alone is not only said by the sender',
  `ScopeName` String CODEC(ZSTD(1)) COMMENT 'Library that made the span',
  `ScopeVersion` String CODEC(ZSTD(1)) COMMENT 'Its version',
  `SpanAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'What is said of the span; numbers, lists and maps as JSON writes them',
  `Duration` UInt64 CODEC(ZSTD(1)) COMMENT 'Nanoseconds; 0 where the end is before the beginning',
  `StatusCode` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Unset, Ok or Error',
  `StatusMessage` String CODEC(ZSTD(1)) COMMENT 'What is said of an error',
  `Events` Nested (
    `Timestamp` DateTime64(9),
    `Name` LowCardinality(String),
    `Attributes` Map(LowCardinality(String), String)
  ) CODEC(ZSTD(1)) COMMENT 'Moments in the span',
  `Links` Nested (
    `TraceId` String,
    `SpanId` String,
    `TraceState` String,
    `Attributes` Map(LowCardinality(String), String)
  ) CODEC(ZSTD(1)) COMMENT 'Other spans that it has to do with',
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_span_attr_key mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_span_attr_value mapValues(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_duration Duration TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp), Timestamp)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Spans: what Operators and the pipeline say that they did';

CREATE TABLE IF NOT EXISTS `otel_traces_trace_id_ts` (
  `TraceId` String CODEC(ZSTD(1)) COMMENT 'Trace, in hex',
  `Start` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'When the first span of an insert began',
  `End` DateTime CODEC(Delta(4), ZSTD(1)) COMMENT 'When the last span of an insert began',
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree PARTITION BY toDate(Start) ORDER BY (TraceId, Start)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Where in time to look for a trace; several rows for one';

CREATE MATERIALIZED VIEW IF NOT EXISTS `otel_traces_trace_id_ts_mv` TO `otel_traces_trace_id_ts` (
  `TraceId` String COMMENT 'Trace, in hex',
  `Start` DateTime64(9) COMMENT 'When the first span of an insert began',
  `End` DateTime64(9) COMMENT 'When the last span of an insert began'
)
AS SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End
FROM otel_traces WHERE TraceId != '' GROUP BY TraceId
COMMENT 'Fills otel_traces_trace_id_ts';

CREATE TABLE IF NOT EXISTS `otel_logs` (
  `Timestamp` DateTime64(9) CODEC(Delta(8), ZSTD(1)) COMMENT 'When it happened; when it was observed where that is not said',
  `TimestampTime` DateTime DEFAULT toDateTime(Timestamp) COMMENT 'The same in seconds',
  `TraceId` String CODEC(ZSTD(1)) COMMENT 'Trace, in hex; empty: none',
  `SpanId` String CODEC(ZSTD(1)) COMMENT 'Span, in hex; empty: none',
  `TraceFlags` UInt8 COMMENT 'W3C trace flags',
  `SeverityText` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Severity in the sender\'s own words',
  `SeverityNumber` UInt8 COMMENT 'Severity from 1 (trace) to 24 (fatal); 0: not said',
  `ServiceName` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'service.name of the resource',
  `Body` String CODEC(ZSTD(1)) COMMENT 'What is said',
  `ResourceSchemaUrl` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'What the resource\'s attributes mean',
  `ResourceAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Who said it; nektar.sender is whose token brought it, and alone is not only said by the sender',
  `ScopeSchemaUrl` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'What the other attributes mean',
  `ScopeName` String CODEC(ZSTD(1)) COMMENT 'Library that made the record',
  `ScopeVersion` LowCardinality(String) CODEC(ZSTD(1)) COMMENT 'Its version',
  `ScopeAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'What else is said of it',
  `LogAttributes` Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'What else is said; numbers, lists and maps as JSON writes them',
  `EventName` String CODEC(ZSTD(1)) COMMENT 'Kind of event, where it is one',
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_key mapKeys(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_scope_attr_value mapValues(ScopeAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_log_attr_key mapKeys(LogAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_log_attr_value mapValues(LogAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX idx_body Body TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8
)
ENGINE = MergeTree PARTITION BY toDate(TimestampTime)
PRIMARY KEY (ServiceName, TimestampTime) ORDER BY (ServiceName, TimestampTime, Timestamp)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000, old_parts_lifetime = 30
COMMENT 'Log records: what Operators and the pipeline say';
