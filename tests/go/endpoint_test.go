// Package endpoint reads a running SQL endpoint with clickhouse-go, as its users and Grafana's plugin do.
//
// Not started by hand: tests/nektar/store/test_clickhouse_go.py fills a store, serves it, names it in
// NEKTAR_SQL (host:port) and runs each test here. What stands in the store is written there.
package endpoint

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// options for the endpoint; change, where given, makes them special.
func options(t testing.TB, change ...func(*clickhouse.Options)) *clickhouse.Options {
	address := os.Getenv("NEKTAR_SQL")
	if address == "" {
		t.Fatal("NEKTAR_SQL names no endpoint; run tests/nektar/store/test_clickhouse_go.py")
	}
	chosen := &clickhouse.Options{Protocol: clickhouse.HTTP, Addr: []string{address}, ReadTimeout: 40 * time.Second}
	for _, each := range change {
		each(chosen)
	}
	return chosen
}

// pool is the endpoint as database/sql.
func pool(t testing.TB, change ...func(*clickhouse.Options)) *sql.DB {
	db := clickhouse.OpenDB(options(t, change...))
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// native is the endpoint by clickhouse-go's own API.
func native(t testing.TB, change ...func(*clickhouse.Options)) driver.Conn {
	conn, err := clickhouse.Open(options(t, change...))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func packed(o *clickhouse.Options) {
	o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionGZIP}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %#v, want %#v", what, got, want)
	}
}

// one is the only value of a query of one row and one column.
func one[T any](t testing.TB, db *sql.DB, query string, args ...any) T {
	t.Helper()
	var value T
	if err := db.QueryRow(query, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return value
}

func TestConnects(t *testing.T) {
	dsn, err := sql.Open("clickhouse", fmt.Sprintf("http://default:x@%s/system?max_execution_time=5", os.Getenv("NEKTAR_SQL")))
	must(t, err)
	defer dsn.Close()
	for name, db := range map[string]*sql.DB{"OpenDB": pool(t), "gzip": pool(t, packed), "DSN": dsn} {
		must(t, db.Ping())
		version := one[string](t, db, "SELECT version()")
		equal(t, name+" version", len(strings.Split(version, ".")), 4)
	}
	equal(t, "database of a DSN", one[string](t, dsn, "SELECT currentDatabase()"), "system")

	conn := native(t)
	must(t, conn.Ping(context.Background()))
	server, err := conn.ServerVersion()
	must(t, err)
	equal(t, "name", server.DisplayName, "nektar")
	equal(t, "revision", server.Revision, uint64(0))
	equal(t, "time zone", server.Timezone.String(), "UTC")
	version := one[string](t, pool(t), "SELECT version()")
	if !strings.HasPrefix(version, server.Version.String()) {
		t.Errorf("version: got %s, want the beginning of %s", server.Version, version)
	}
}

// fresh makes a variable of the driver's own type for each column.
func fresh(columns []*sql.ColumnType) []any {
	into := make([]any, len(columns))
	for i, column := range columns {
		into[i] = reflect.New(column.ScanType()).Interface()
	}
	return into
}

func columnsOf(t testing.TB, db *sql.DB, query string, args ...any) []*sql.ColumnType {
	t.Helper()
	rows, err := db.Query(query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.ColumnTypes()
	must(t, err)
	return columns
}

// count reads all rows of a query, each into the driver's own types, and says how many there were.
func count(t testing.TB, db *sql.DB, query string, args ...any) int {
	t.Helper()
	rows, err := db.Query(query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.ColumnTypes()
	must(t, err)
	if len(columns) == 0 {
		t.Errorf("%s: no column is named", query)
	}
	read := 0
	for ; rows.Next(); read++ {
		if err := rows.Scan(fresh(columns)...); err != nil {
			t.Fatalf("%s: row %d: %v", query, read, err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return read
}

func TestZeroRows(t *testing.T) {
	for name, db := range map[string]*sql.DB{"plain": pool(t), "gzip": pool(t, packed)} {
		equal(t, name, count(t, db, "SELECT * FROM kinds WHERE small = 0"), 0)
		equal(t, name, count(t, db, "SELECT * FROM duties WHERE network = {n:String}", clickhouse.Named("n", "none")), 0)
		equal(t, name, count(t, db, "SHOW TABLES FROM default LIKE 'none'"), 0)
		equal(t, name, count(t, db, "SELECT 1 AS a WHERE 0 UNION ALL SELECT 2 WHERE 0"), 0)
		columns := columnsOf(t, db, "WITH 'x' AS w SELECT w, labels FROM kinds WHERE 0")
		equal(t, name, []string{columns[0].Name(), columns[1].DatabaseTypeName()}, []string{"w", "Map(LowCardinality(String), String)"})
		var none int
		equal(t, name, db.QueryRow("SELECT 1 WHERE 0").Scan(&none), sql.ErrNoRows)
	}
}

func TestParameters(t *testing.T) {
	db := pool(t)
	for _, nasty := range []string{"", "it's", `\`, `\n`, "tab\tnew\nline\rnul\x00", "ä😀", "') FROM file('/etc/passwd') --", "{x:String}", "NULL", `\N `} {
		equal(t, "String", one[string](t, db, "SELECT {x:String}", clickhouse.Named("x", nasty)), nasty)
		equal(t, "bound by the client", one[string](t, db, "SELECT ?", nasty), nasty)
	}
	wide := strings.Repeat("9", 70)
	equal(t, "UInt256", one[string](t, db, "SELECT toString({x:UInt256} + 1)", clickhouse.Named("x", wide)), "1"+strings.Repeat("0", 70))
	equal(t, "Array", one[string](t, db, "SELECT {x:Array(String)}[2]", clickhouse.Named("x", []string{"a", "b'\t"})), "b'\t")
	when := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	equal(t, "DateTime64", one[time.Time](t, db, "SELECT {x:DateTime64(9)}", clickhouse.Named("x", when)).UTC(), when)
	equal(t, "Nullable", one[bool](t, db, "SELECT {x:Nullable(String)} IS NULL", clickhouse.Named("x", nil)), true)
	ctx := clickhouse.Context(context.Background(), clickhouse.WithParameters(clickhouse.Parameters{"n": "7"}))
	var n uint8
	must(t, native(t).QueryRow(ctx, "SELECT {n:UInt8}").Scan(&n))
	equal(t, "of the context", n, uint8(7))
	refused(t, db, 164, 403, "SELECT * FROM {t:Identifier}", clickhouse.Named("t", "kinds"))
	refused(t, db, 457, 400, "SELECT {n:UInt8}", clickhouse.Named("n", "none"))
}

// refused checks that a query fails with this code of ClickHouse's and this status.
func refused(t testing.TB, db *sql.DB, code int32, status int, query string, args ...any) *clickhouse.Exception {
	t.Helper()
	rows, err := db.Query(query, args...)
	if err == nil {
		rows.Close()
		t.Fatalf("%s: got rows, want code %d", query, code)
	}
	var exception *clickhouse.Exception
	var over *clickhouse.HTTPError
	if !errors.As(err, &exception) || !errors.As(err, &over) {
		t.Fatalf("%s: got %v, want an exception of ClickHouse's", query, err)
	}
	equal(t, query, []int{int(exception.Code), over.StatusCode}, []int{int(code), status})
	equal(t, query, exception.Name, "DB::Exception")
	return exception
}

func TestErrors(t *testing.T) {
	for _, db := range []*sql.DB{pool(t), pool(t, packed)} {
		unknown := refused(t, db, 47, 404, "SELECT nope FROM kinds")
		equal(t, "name", unknown.CodeName, "UNKNOWN_IDENTIFIER")
		if !strings.Contains(unknown.Message, "`nope`") {
			t.Errorf("message: got %s, want one that names `nope`", unknown.Message)
		}
		refused(t, db, 60, 404, "SELECT * FROM nope")
		refused(t, db, 62, 400, "SELECT 1 FROM")
		refused(t, db, 395, 500, "SELECT throwIf(number = 90000) FROM numbers(100000)")
		equal(t, "name", refused(t, db, 164, 403, "DROP TABLE kinds").CodeName, "READONLY")
		equal(t, "goes on", one[uint8](t, db, "SELECT 1"), uint8(1))
	}
	refused(t, pool(t, func(o *clickhouse.Options) { o.Auth.Database = "nope" }), 81, 404, "SELECT 1")
	lz4 := pool(t, func(o *clickhouse.Options) {
		o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	})
	if message := refused(t, lz4, 48, 501, "SELECT 1").Message; !strings.Contains(message, "use gzip or none") {
		t.Errorf("LZ4: got %s, want what to use", message)
	}
	batch, err := native(t).PrepareBatch(context.Background(), "INSERT INTO kinds (small)")
	must(t, err)
	must(t, batch.Append(uint8(1)))
	var exception *clickhouse.Exception
	if err := batch.Send(); !errors.As(err, &exception) || exception.Code != 164 {
		t.Errorf("insert: got %v, want code 164", err)
	}
}

func TestSettings(t *testing.T) {
	ask := func(setting string, settings clickhouse.Settings) string {
		ctx := clickhouse.Context(context.Background(), clickhouse.WithSettings(settings))
		var value string
		must(t, pool(t).QueryRowContext(ctx, fmt.Sprintf("SELECT toString(getSetting('%s'))", setting)).Scan(&value))
		return value
	}
	equal(t, "lowered", ask("max_execution_time", clickhouse.Settings{"max_execution_time": 7}), "7")
	equal(t, "not raised", ask("max_execution_time", clickhouse.Settings{"max_execution_time": 3600}), "30")
	equal(t, "its own", ask("date_time_output_format", clickhouse.Settings{"date_time_output_format": "iso"}), "iso")
	equal(t, "readonly", ask("readonly", clickhouse.Settings{"readonly": 2}), "1")
	equal(t, "custom", ask("extremes", clickhouse.Settings{"extremes": clickhouse.CustomSetting{Value: "1"}}), "true")

	limited := pool(t, func(o *clickhouse.Options) {
		o.Settings = clickhouse.Settings{"limit": 3, "wait_end_of_query": 1, "session_id": "s"}
	})
	equal(t, "rows of at most 3", count(t, limited, "SELECT number FROM numbers(10)"), 3)
	refused(t, pool(t, func(o *clickhouse.Options) { o.Settings = clickhouse.Settings{"allow_ddl": 1} }), 164, 403, "SELECT 1")

	ctx, done := context.WithTimeout(context.Background(), 20*time.Second) // sends max_execution_time
	defer done()
	ctx = clickhouse.Context(ctx, clickhouse.WithQueryID("mine"), clickhouse.WithQuotaKey("q"),
		clickhouse.WithUserLocation(time.FixedZone("x", 3600)))
	var second time.Time
	must(t, pool(t).QueryRowContext(ctx, "SELECT toDateTime(0)").Scan(&second))
	equal(t, "time", second.UTC(), time.Unix(0, 0).UTC())
}

func TestManyConnections(t *testing.T) {
	var group sync.WaitGroup
	for i := range 32 {
		group.Go(func() {
			database := []string{"default", "system", "otel"}[i%3]
			conn := native(t, packed, func(o *clickhouse.Options) { o.Auth.Database = database })
			for j := range 5 {
				var number uint64
				var where string
				row := conn.QueryRow(context.Background(), fmt.Sprintf("SELECT toUInt64(%d), currentDatabase()", i*100+j))
				if err := row.Scan(&number, &where); err != nil {
					t.Error(err)
					return
				}
				equal(t, "answer", []any{number, where}, []any{uint64(i*100 + j), database})
			}
		})
	}
	group.Wait()
	shared := pool(t)
	shared.SetMaxOpenConns(16)
	for i := range 64 {
		group.Go(func() {
			var number int64
			if err := shared.QueryRow(fmt.Sprintf("SELECT toInt64(%d)", i)).Scan(&number); err != nil || number != int64(i) {
				t.Errorf("got %d, %v, want %d", number, err, i)
			}
		})
	}
	group.Wait()
}

func TestLargeResult(t *testing.T) {
	const total, size = 300_000, 10_000
	for name, change := range map[string]func(*clickhouse.Options){"plain": func(*clickhouse.Options) {}, "gzip": packed} {
		ctx := clickhouse.Context(context.Background(), clickhouse.WithSettings(clickhouse.Settings{"max_block_size": size}))
		query := fmt.Sprintf("SELECT number, hex(number), toLowCardinality(toString(number %% 7)), map('k', toString(number)), blockNumber() FROM numbers(%d)", total)
		rows, err := native(t, change).Query(ctx, query)
		must(t, err)
		var sum, read uint64
		blocks := map[uint64]bool{}
		for ; rows.Next(); read++ {
			var number, block uint64
			var hex, low string
			var labels map[string]string
			must(t, rows.Scan(&number, &hex, &low, &labels, &block))
			sum += number
			blocks[block] = true
			if labels["k"] != fmt.Sprint(number) || low != fmt.Sprint(number%7) {
				t.Fatalf("%s: row %d: got %v and %s", name, number, labels, low)
			}
		}
		must(t, rows.Err())
		must(t, rows.Close())
		equal(t, name, []uint64{read, sum}, []uint64{total, total * (total - 1) / 2})
		if len(blocks) < 10 {
			t.Errorf("%s: got %d blocks, want many", name, len(blocks))
		}
	}
	refused(t, pool(t), 396, 500, "SELECT number FROM numbers(2000000)")
}

// A dashboard that is left or refreshed cancels what it asked, which must not run on.
func TestCancelledQueries(t *testing.T) {
	db := pool(t)
	running := func(want uint64) {
		const query = "SELECT count() FROM system.processes WHERE startsWith(query, 'SELECT sum(cityHash64(number)) FROM numbers(1000000000000)')"
		for began := time.Now(); one[uint64](t, db, query) != want; {
			if time.Since(began) > 20*time.Second {
				t.Fatalf("%d queries do not run after 20 s", want)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		var sum uint64
		ended <- db.QueryRowContext(ctx, "SELECT sum(cityHash64(number)) FROM numbers(1000000000000)").Scan(&sum)
	}()
	running(1)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	running(0)
}
