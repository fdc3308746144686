// Command export sends spans as an operator's program in Go does, by whatever OTEL_EXPORTER_OTLP_… say:
// `export http|grpc`. Prints the ids of what it sent, a line of JSON. Run by tests/indexer/test_sdks.py.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	ctx := context.Background()
	// Sooner than by default, which is 5 s; what the collector says is later counts all the same.
	retry := otlptracehttp.RetryConfig{Enabled: true, InitialInterval: 50 * time.Millisecond, MaxInterval: time.Second, MaxElapsedTime: time.Minute}
	client := otlptracehttp.NewClient(otlptracehttp.WithRetry(retry))
	if os.Args[1] == "grpc" {
		client = otlptracegrpc.NewClient(otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig(retry)))
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		log.Fatal(err)
	}
	of := resource.NewSchemaless(attribute.String("service.name", "operator-in-go"))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(of))
	tracer := provider.Tracer("go")
	sent := [][3]string{}
	for i := range 5 {
		within, parent := tracer.Start(ctx, fmt.Sprintf("task %d", i), trace.WithSpanKind(trace.SpanKindServer))
		_, child := tracer.Start(within, "compute")
		child.SetAttributes(
			attribute.Int64("n", 1<<40), attribute.Float64("half", 0.5), attribute.Bool("ok", true),
			attribute.StringSlice("list", []string{"a", "ä"}),
		)
		child.AddEvent("signed", trace.WithAttributes(attribute.String("digest", "0x00")))
		child.SetStatus(codes.Error, "late")
		child.End()
		parent.End()
		ids := child.SpanContext()
		sent = append(sent, [3]string{ids.TraceID().String(), ids.SpanID().String(), parent.SpanContext().SpanID().String()})
	}
	if err := provider.ForceFlush(ctx); err != nil {
		log.Fatal(err)
	}
	if err := provider.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(sent); err != nil {
		log.Fatal(err)
	}
}
