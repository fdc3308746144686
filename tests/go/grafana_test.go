package endpoint

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// grafana is a pool as the backend of Grafana's ClickHouse plugin (grafana/clickhouse-datasource 4.x) opens it:
// gzip, the data source's own settings, a row limit, its name in the client's, and each query in its own time
// zone. Its frontend writes the statements below and its backend expands the macros ($__timeFilter,
// $__timeInterval, $__fromTime …) before it asks.
func grafana(t testing.TB) []func(*clickhouse.Options) {
	return []func(*clickhouse.Options){packed, func(o *clickhouse.Options) {
		o.Auth = clickhouse.Auth{Database: "default", Username: "default"}
		o.Settings = clickhouse.Settings{"max_execution_time": "60", "limit": 1000000, "date_time_output_format": "iso"}
		o.ClientInfo.Products = []struct{ Name, Version string }{{"grafana", "12.3.0"}, {"clickhouse-datasource", "4.20.0"}}
		o.HttpHeaders = map[string]string{"X-Dashboard-Uid": "nektar", "X-Panel-Id": "1", "X-Grafana-User": "admin"}
		o.ReadTimeout = time.Minute
		o.DialTimeout = 10 * time.Second
	}}
}

// "Save & test" pings; whatever it finds wrong it sorts by the words of the error.
func TestGrafanaSavesAndTests(t *testing.T) {
	db := pool(t, grafana(t)...)
	must(t, db.PingContext(context.Background()))
	equal(t, "ad hoc filters need 22.7", one[string](t, db, "SELECT version()") > "22.7", true)
}

func TestGrafanaFindsDatabasesTablesAndColumns(t *testing.T) {
	db := pool(t, grafana(t)...)
	for query, want := range map[string][]string{
		"SHOW DATABASES": {"default", "otel"},
		"SELECT name FROM system.databases ORDER BY name": {"default", "otel"},
		`SHOW TABLES FROM "otel"`:                         {"otel_traces", "otel_traces_trace_id_ts"},
		"SHOW TABLES":                                     {"duties", "findings", "kinds", "tasks"},
		"SELECT name FROM system.tables WHERE database = 'default' ORDER BY name":                           {"duties", "findings", "kinds", "tasks"},
		`DESC TABLE "otel"."otel_traces_trace_id_ts"`:                                                       {"TraceId", "Start", "End"},
		`DESC TABLE "default"."kinds"`:                                                                      {"hash", "events.Name"},
		"SELECT name FROM system.columns WHERE database = 'default' AND table = 'duties' ORDER BY name":     {"operator", "state"},
		"SELECT name, type, table FROM system.columns":                                                      {"TraceId", "state"},
		"SELECT name, type, table FROM system.columns WHERE database IN ('otel') AND table = 'otel_traces'": {"TraceId", "Events.Name"},
		"SELECT DISTINCT arrayJoin(mapKeys(\"SpanAttributes\")) as keys FROM (SELECT \"SpanAttributes\" FROM \"otel\".\"otel_traces\" LIMIT 100000) LIMIT 1000":                                                               {"task"},
		`SELECT DISTINCT "SpanAttributes"['task'] FROM "otel"."otel_traces" WHERE mapContains("SpanAttributes", 'task') LIMIT 1000`:                                                                                           {"0x01"},
		`SELECT DISTINCT "ServiceName" FROM "otel"."otel_traces" WHERE "ServiceName" IS NOT NULL LIMIT 1000`:                                                                                                                  {"operator-1"},
		"\n      SELECT\n        name, is_aggregate, case_insensitive, alias_to, origin, description,\n        syntax, arguments, returned_value, examples, categories\n      FROM system.functions\n      LIMIT 10000\n    ": {"sum", "toDateTime"},
	} {
		rows, err := db.Query(query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		columns, err := rows.ColumnTypes()
		must(t, err)
		found := map[string]bool{}
		for rows.Next() {
			into := fresh(columns)
			must(t, rows.Scan(into...))
			found[*into[0].(*string)] = true
		}
		must(t, rows.Err())
		must(t, rows.Close())
		for _, name := range want {
			if !found[name] {
				t.Errorf("%s: %s is missing", query, name)
			}
		}
	}
}

// The statements of the query builder and of panels, as they leave the plugin's backend.
func TestGrafanaQueries(t *testing.T) {
	from, to := time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC), time.Date(2026, 11, 24, 13, 0, 0, 0, time.UTC)
	within := func(column string) string {
		return fmt.Sprintf("%[1]s >= toDateTime(%[2]d) AND %[1]s <= toDateTime(%[3]d)", column, from.Unix(), to.Unix())
	}
	interval := func(column string) string {
		return fmt.Sprintf("toStartOfInterval(toDateTime(%s), INTERVAL 60 second)", column)
	}
	tags := func(column string) string {
		return fmt.Sprintf("arrayMap(key -> map('key', key, 'value',%s[key]), mapKeys(%[1]s))", column)
	}
	story := `SELECT "TraceId" as traceID, "SpanId" as spanID, "ParentSpanId" as parentSpanID,
		"ServiceName" as serviceName, "SpanName" as operationName, multiply(toUnixTimestamp64Nano("Timestamp"), 0.000001) as startTime,
		multiply("Duration", 0.000001) as duration, ` + tags(`"SpanAttributes"`) + " as tags, " + tags(`"ResourceAttributes"`) + ` as serviceTags,
		if("StatusCode" IN ('Error', 'STATUS_CODE_ERROR'), 2, 0) as statusCode,
		arrayMap((name, timestamp, attributes) -> tuple(name, toString(toUnixTimestamp64Milli(timestamp)), ` + tags("attributes") +
		`)::Tuple(name String, timestamp String, fields Array(Map(String, String))), "Events".Name, "Events".Timestamp, "Events".Attributes) AS logs,
		arrayMap((traceID, spanID, attributes) -> tuple(traceID, spanID, ` + tags("attributes") +
		`)::Tuple(traceID String, spanID String, tags Array(Map(String, String))), "Links".TraceId, "Links".SpanId, "Links".Attributes) AS references,
		"SpanKind" as kind, "StatusMessage" as statusMessage, "TraceState" as traceState FROM "otel"."otel_traces" `

	const some = -1
	for name, each := range map[string]struct {
		query string
		rows  int
	}{
		"table":                  {`SELECT hash, wide, labels FROM "default"."kinds" WHERE ( small IS NOT NULL ) LIMIT 1000`, 1},
		"table, counted":         {`SELECT state, count(*) as d FROM "default"."duties" WHERE ( state IS NOT NULL ) GROUP BY state LIMIT 1000`, some},
		"time series":            {`SELECT Timestamp as "time", Duration FROM "otel"."otel_traces" WHERE ( ` + within("Timestamp") + ` ) ORDER BY time ASC LIMIT 100`, 3},
		"time series, trend":     {"SELECT " + interval("Timestamp") + ` as "time", ServiceName, count(*) as spans FROM "otel"."otel_traces" WHERE ( ` + within("Timestamp") + " ) GROUP BY ServiceName, time ORDER BY time ASC LIMIT 100", 2},
		"in milliseconds":        {fmt.Sprintf("SELECT toStartOfInterval(toDateTime64(Timestamp, 3), INTERVAL 500 millisecond) AS time, max(Duration) FROM otel.otel_traces WHERE Timestamp >= fromUnixTimestamp64Milli(%d) AND Timestamp <= fromUnixTimestamp64Milli(%d) GROUP BY time ORDER BY time", from.UnixMilli(), to.UnixMilli()), 1},
		"by date":                {"SELECT count() FROM otel.otel_traces WHERE toDate(Timestamp) >= toDate('2026-11-24') AND toDate(Timestamp) <= toDate('2026-11-24')", 1},
		"from and to":            {fmt.Sprintf("SELECT count() FROM otel.otel_traces WHERE Timestamp BETWEEN fromUnixTimestamp64Milli(toInt64(%d)) AND fromUnixTimestamp64Milli(toInt64(%d))", from.UnixMilli(), to.UnixMilli()), 1},
		"nothing in the range":   {`SELECT Timestamp as "time", Duration FROM "otel"."otel_traces" WHERE ( Timestamp >= toDateTime(1) AND Timestamp <= toDateTime(2) ) ORDER BY time ASC LIMIT 100`, 0},
		"rate of a counter":      {"SELECT t, key, if(t - lagInFrame(t, 1, t) OVER w = 0, nan, v / (t - lagInFrame(t, 1, t) OVER w)) AS rate FROM (SELECT " + interval("Timestamp") + " AS t, ServiceName AS key, sum(Duration) AS v FROM otel.otel_traces WHERE " + within("Timestamp") + " GROUP BY t, key ORDER BY t, key) WINDOW w AS (PARTITION BY key ORDER BY t ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) ORDER BY t", 2},
		"traces":                 {`SELECT "TraceId" as traceID, "ServiceName" as serviceName, "SpanName" as operationName, "Timestamp" as startTime, multiply("Duration", 0.000001) as duration FROM "otel"."otel_traces" WHERE ( ` + within("Timestamp") + ` ) AND ( ParentSpanId = '' ) AND ( Duration > 0 ) ORDER BY Timestamp DESC, Duration DESC LIMIT 1000`, 2},
		"a trace":                {story + "WHERE traceID = 'aa01'", 2},
		"a trace, by its window": {`WITH 'aa01' as __gf_trace_id, (SELECT min(Start) FROM "otel"."otel_traces_trace_id_ts" WHERE TraceId = __gf_trace_id) as __gf_trace_start, (SELECT max(End) + 1 FROM "otel"."otel_traces_trace_id_ts" WHERE TraceId = __gf_trace_id) as __gf_trace_end ` + story + `WHERE traceID = __gf_trace_id AND "Timestamp" >= __gf_trace_start AND "Timestamp" <= __gf_trace_end`, 2},
		"a trace that is not":    {story + "WHERE traceID = 'none'", 0},
		"a variable":             {"SELECT DISTINCT state AS value FROM `default`.`duties` WHERE state IS NOT NULL ORDER BY value LIMIT 1000", some},
		"an annotation":          {"SELECT Timestamp AS time, SpanName AS text, ServiceName AS tags FROM otel.otel_traces WHERE " + within("Timestamp"), 3},
		"with a format":          {"SELECT 1 AS a FORMAT Native", 1},
		"explained":              {"EXPLAIN SELECT state FROM duties", some},
	} {
		ctx := clickhouse.Context(context.Background(), clickhouse.WithUserLocation(time.UTC),
			clickhouse.WithClientInfo(clickhouse.ClientInfo{Comment: []string{"grafana_user:admin", "grafana_panel:1"}}))
		rows, err := pool(t, grafana(t)...).QueryContext(ctx, each.query)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		columns, err := rows.ColumnTypes()
		must(t, err)
		if len(columns) == 0 {
			t.Errorf("%s: no column is named", name)
		}
		read := 0
		for ; rows.Next(); read++ {
			must(t, rows.Scan(fresh(columns)...))
		}
		must(t, rows.Err())
		must(t, rows.Close())
		if read != each.rows && (each.rows != some || read == 0) {
			t.Errorf("%s: got %d rows, want %d", name, read, each.rows)
		}
	}
}

// What the plugin can't have here, and how it is told so.
func TestGrafanaIsRefusedSettingsInAQuery(t *testing.T) {
	db := pool(t, grafana(t)...)
	for _, query := range []string{
		"SELECT * FROM kinds settings additional_table_filters={'kinds' : ' small = \\'1\\' '}", // ad hoc filters
		"SELECT 1 SETTINGS max_execution_time=10",
	} {
		if message := refused(t, db, 164, 403, query).Message; !strings.Contains(message, "SETTINGS can't be changed in a query") {
			t.Errorf("%s: got %s", query, message)
		}
	}
}
