package endpoint

import (
	"context"
	"fmt"
	"math/big"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// every is the one row of the table of the same name.
type every struct {
	Hash    string                   `ch:"hash"`
	Wide    big.Int                  `ch:"wide"`
	Below   big.Int                  `ch:"below"`
	Small   uint8                    `ch:"small"`
	Signed  int64                    `ch:"signed"`
	Flag    bool                     `ch:"flag"`
	Word    string                   `ch:"word"`
	None    *string                  `ch:"none"`
	Some    *bool                    `ch:"some"`
	Second  time.Time                `ch:"second"`
	Nano    time.Time                `ch:"nano"`
	Labels  map[string]string        `ch:"labels"`
	Amounts []*big.Int               `ch:"amounts"`
	Groups  [][]string               `ch:"groups"`
	Pairs   []map[string]interface{} `ch:"pairs"`
	Names   []string                 `ch:"events.Name"`
	Times   []time.Time              `ch:"events.Time"`
	Tags    []map[string]string      `ch:"events.Tags"`
	Float   float64                  `ch:"float"`
}

func TestTypes(t *testing.T) {
	huge := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
	lowest := new(big.Int).Neg(new(big.Int).Lsh(big.NewInt(1), 255))
	yes := true
	nano := time.Date(2026, 11, 24, 12, 0, 0, 123456789, time.UTC)
	want := every{
		Hash: "\x00\xff" + strings.Repeat("\xab", 18), Wide: *huge, Below: *lowest, Small: 255, Signed: -1 << 63,
		Flag: true, Word: "proved", None: nil, Some: &yes, Second: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), Nano: nano,
		Labels:  map[string]string{"service.name": "operator", "": "ä\x00'"},
		Amounts: []*big.Int{big.NewInt(0), huge}, Groups: [][]string{{}, {"a", "b"}},
		Pairs: []map[string]interface{}{{"x": *big.NewInt(1), "who": "\x01\x02"}, {"x": *huge, "who": "\x03\x04"}},
		Names: []string{"signed", "sent"}, Times: []time.Time{nano, nano.Add(1)},
		Tags: []map[string]string{{}, {"k": "v"}}, Float: 0.5,
	}
	const query = "SELECT * EXCEPT (price) FROM kinds"
	for name, change := range map[string]func(*clickhouse.Options){"plain": func(*clickhouse.Options) {}, "gzip": packed} {
		var got []every
		must(t, native(t, change).Select(context.Background(), &got, query))
		if len(got) != 1 {
			t.Fatalf("%s: got %d rows, want 1", name, len(got))
		}
		for i := range reflect.TypeOf(want).NumField() {
			field := reflect.TypeOf(want).Field(i)
			g, w := reflect.ValueOf(got[0]).Field(i).Interface(), reflect.ValueOf(want).Field(i).Interface()
			equal(t, name+" "+field.Name, plain(g), plain(w))
		}
	}
	// The same by database/sql, each value as the driver itself likes to have it.
	rows, err := pool(t).Query(query)
	must(t, err)
	defer rows.Close()
	columns, err := rows.ColumnTypes()
	must(t, err)
	types := map[string]string{
		"hash": "FixedString(20)", "wide": "UInt256", "below": "Int256", "flag": "Bool", "word": "LowCardinality(String)",
		"none": "Nullable(String)", "some": "Nullable(Bool)", "second": "DateTime", "nano": "DateTime64(9)",
		"labels": "Map(LowCardinality(String), String)", "pairs": "Array(Tuple(x UInt256, who FixedString(2)))",
		"events.Tags": "Array(Map(LowCardinality(String), String))",
	}
	for _, column := range columns {
		if want, named := types[column.Name()]; named {
			equal(t, "type of "+column.Name(), column.DatabaseTypeName(), want)
			delete(types, column.Name())
		}
	}
	equal(t, "columns not seen", types, map[string]string{})
	equal(t, "rows", rows.Next(), true)
	must(t, rows.Scan(fresh(columns)...))

	equal(t, "Decimal", one[string](t, pool(t), "SELECT toString(price) FROM kinds"), "-12345678901234567890.000000000000000001")
	scanned := fresh(columnsOf(t, pool(t), "SELECT price FROM kinds"))
	must(t, pool(t).QueryRow("SELECT price FROM kinds").Scan(scanned...))
	equal(t, "Decimal read", fmt.Sprint(reflect.ValueOf(scanned[0]).Elem()), "-12345678901234567890.000000000000000001")
}

// plain is v with times and wide integers as text, which compare.
func plain(v any) string {
	return fmt.Sprintf("%+v", text(reflect.ValueOf(v)))
}

func text(v reflect.Value) any {
	switch value := v.Interface().(type) {
	case big.Int:
		return value.String()
	case time.Time:
		return value.UTC().Format(time.RFC3339Nano)
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return text(v.Elem())
	case reflect.Slice:
		parts := make([]any, v.Len())
		for i := range parts {
			parts[i] = text(v.Index(i))
		}
		return parts
	case reflect.Map:
		parts := map[string]any{}
		for _, key := range v.MapKeys() {
			parts[key.String()] = text(v.MapIndex(key))
		}
		return parts
	}
	return v.Interface()
}

var composed = regexp.MustCompile(`^(Array|Map|Tuple)`)

// Every table and view that the project makes, filled with any values; scalars as ClickHouse itself prints them.
func TestEveryTable(t *testing.T) {
	db := pool(t, packed)
	tables, err := db.Query("SELECT name FROM system.tables WHERE database = 'default' ORDER BY name")
	must(t, err)
	var names []string
	for tables.Next() {
		var name string
		must(t, tables.Scan(&name))
		names = append(names, name)
	}
	must(t, tables.Err())
	if len(names) < 20 {
		t.Fatalf("got the tables %v, want the whole schema", names)
	}
	compared := 0
	for _, name := range names {
		want := int(one[uint64](t, db, fmt.Sprintf("SELECT count() FROM `%s`", name)))
		if want == 0 {
			t.Errorf("%s is empty", name)
		}
		equal(t, "rows of "+name, count(t, db, fmt.Sprintf("SELECT * FROM `%s`", name)), want)
		// Each scalar beside its own text, in one query a table.
		var asked []string
		for _, column := range columnsOf(t, db, fmt.Sprintf("SELECT * FROM `%s` WHERE 0", name)) {
			if kind := column.DatabaseTypeName(); kind != "DateTime" && !strings.Contains(kind, "(") || strings.Contains(kind, "String)") && !composed.MatchString(kind) {
				asked = append(asked, fmt.Sprintf("`%s`, ifNull(toString(`%[1]s`), '<nil>')", column.Name()))
			}
		}
		rows, err := db.Query(fmt.Sprintf("SELECT %s FROM `%s`", strings.Join(asked, ", "), name))
		must(t, err)
		types, err := rows.ColumnTypes()
		must(t, err)
		for rows.Next() {
			into := fresh(types)
			must(t, rows.Scan(into...))
			for i := 0; i < len(into); i += 2 {
				// toString of a FixedString ends at its zeros.
				got := strings.TrimRight(fmt.Sprint(text(reflect.ValueOf(into[i]))), "\x00")
				said := strings.TrimRight(*into[i+1].(*string), "\x00")
				equal(t, name+"."+types[i].Name()+" "+types[i].DatabaseTypeName(), got, said)
				compared++
			}
		}
		must(t, rows.Err())
		must(t, rows.Close())
	}
	if compared < 1000 {
		t.Errorf("compared only %d values", compared)
	}
}
