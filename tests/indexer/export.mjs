// Exports as an operator's program in Node does, by whatever OTEL_EXPORTER_OTLP_… say: `node export.mjs
// proto|json`. Prints the ids of what it sent, a line of JSON.
import { context, trace, SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http";
import { OTLPTraceExporter as JsonExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as ProtoExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const resource = resourceFromAttributes({ "service.name": "operator-in-node" });
const exporter = process.argv[2] === "json" ? new JsonExporter() : new ProtoExporter();
const provider = new NodeTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(exporter)] });
const tracer = provider.getTracer("node", "1");
const sent = [];
for (let i = 0; i < 5; i++) {
  const parent = tracer.startSpan(`task ${i}`, { kind: SpanKind.SERVER });
  const child = tracer.startSpan("compute", {}, trace.setSpan(context.active(), parent));
  child.setAttributes({ n: 2 ** 40, half: 0.5, ok: true, list: ["a", "ä"] });
  child.addEvent("signed", { digest: "0x00" });
  child.setStatus({ code: SpanStatusCode.ERROR, message: "late" });
  child.end();
  parent.end();
  sent.push([child.spanContext().traceId, child.spanContext().spanId, parent.spanContext().spanId]);
}
await provider.shutdown();

const loggers = new LoggerProvider({
  resource,
  processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter() })],
});
loggers.getLogger("node").emit({ body: "hello", severityNumber: 9, attributes: { k: "v" } });
await loggers.shutdown();
console.log(JSON.stringify(sent));
