-- What endpoint_test.go knows each value of: one row with every kind of type that the tables of the schema have.
CREATE TABLE kinds (
  hash FixedString(20), wide UInt256, below Int256, small UInt8, signed Int64, flag Bool,
  word LowCardinality(String), none Nullable(String), some Nullable(Bool),
  second DateTime('UTC'), nano DateTime64(9), labels Map(LowCardinality(String), String),
  amounts Array(UInt256), groups Array(Array(String)), pairs Array(Tuple(x UInt256, who FixedString(2))),
  events Nested(Name LowCardinality(String), Time DateTime64(9), Tags Map(LowCardinality(String), String)),
  price Decimal(38, 18), float Float64
) ENGINE = MergeTree ORDER BY small;
INSERT INTO kinds
WITH toDateTime64('2026-11-24 12:00:00.123456789', 9, 'UTC') AS at, bitNot(toUInt256(0)) AS huge
SELECT
  unhex(concat('00ff', repeat('ab', 18))), huge, bitShiftLeft(toInt256(1), 255), 255, -9223372036854775808, true,
  'proved', NULL, true,
  toDateTime(at, 'UTC'), at, map('service.name', 'operator', '', 'ä\0\''),
  [toUInt256(0), huge], [[], ['a', 'b']], [(toUInt256(1), '\x01\x02'), (huge, '\x03\x04')],
  ['signed', 'sent'], [at, addNanoseconds(at, 1)], [map(), map('k', 'v')],
  toDecimal128('-12345678901234567890.000000000000000001', 18), 0.5;
-- Spans, in the tables that the Collector's ClickHouse exporter makes.
CREATE DATABASE otel;
CREATE TABLE otel.otel_traces (
  Timestamp DateTime64(9), TraceId String, SpanId String, ParentSpanId String, TraceState String,
  SpanName LowCardinality(String), SpanKind LowCardinality(String), ServiceName LowCardinality(String),
  ResourceAttributes Map(LowCardinality(String), String), ScopeName String, ScopeVersion String,
  SpanAttributes Map(LowCardinality(String), String), Duration UInt64,
  StatusCode LowCardinality(String), StatusMessage String,
  Events Nested(Timestamp DateTime64(9), Name LowCardinality(String), Attributes Map(LowCardinality(String), String)),
  Links Nested(TraceId String, SpanId String, TraceState String, Attributes Map(LowCardinality(String), String))
) ENGINE = MergeTree PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp), Timestamp);
CREATE TABLE otel.otel_traces_trace_id_ts (TraceId String, Start DateTime, End DateTime)
ENGINE = MergeTree PARTITION BY toDate(Start) ORDER BY (TraceId, Start);
CREATE MATERIALIZED VIEW otel.otel_traces_trace_id_ts_mv TO otel.otel_traces_trace_id_ts AS
SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End FROM otel.otel_traces
WHERE TraceId != '' GROUP BY TraceId;
INSERT INTO otel.otel_traces
SELECT
  toDateTime64('2026-11-24 12:00:00.000000001', 9, 'UTC'), trace, span, parent, '', 'sign', 'SPAN_KIND_INTERNAL',
  service, map('service.name', service), 'nektar', '1', map('task', '0x01'), 1500000, 'Ok', '',
  [toDateTime64('2026-11-24 12:00:00.5', 9, 'UTC')], ['sent'], [map('to', 'aggregator')],
  ['bb01'], ['01'], [''], [map()]
FROM values('trace String, span String, parent String, service String',
  ('aa01', '01', '', 'operator-1'), ('aa01', '02', '01', 'operator-2'), ('aa02', '03', '', 'operator-1'));
