// Exports as an operator's program in Node does: `node export.mjs ADDRESS proto|json none|gzip TOKEN`.
// Prints the ids of what it sent, a line of JSON.
import { context, trace, SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http";
import { OTLPTraceExporter as JsonExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as ProtoExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const [address, form, compression, token] = process.argv.slice(2);
const options = (path) => ({
  url: `http://${address}/v1/${path}`,
  compression,
  headers: { authorization: `Bearer ${token}` },
});
const resource = resourceFromAttributes({ "service.name": "operator-in-node" });
const exporter = form === "json" ? new JsonExporter(options("traces")) : new ProtoExporter(options("traces"));
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
  processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(options("logs")) })],
});
loggers.getLogger("node").emit({ body: "hello", severityNumber: 9, attributes: { k: "v" } });
await loggers.shutdown();
console.log(JSON.stringify(sent));
