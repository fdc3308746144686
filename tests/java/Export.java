import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.logs.Severity;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * Exports as an operator's program in Java does, by whatever OTEL_… say. Prints the ids of the spans that it sent,
 * a line of JSON. Run by tests/indexer/test_sdks.py.
 */
public final class Export {
  public static void main(String[] arguments) {
    List<String> sent = new ArrayList<>();
    OpenTelemetrySdk sdk = AutoConfiguredOpenTelemetrySdk.initialize().getOpenTelemetrySdk();
    Tracer tracer = sdk.getTracer("java");
    for (int i = 0; i < 5; i++) {
      Span parent = tracer.spanBuilder("task " + i).setSpanKind(SpanKind.SERVER).startSpan();
      Span child = tracer.spanBuilder("compute").setParent(Context.root().with(parent)).startSpan();
      child.setAttribute("n", 1L << 40).setAttribute("half", 0.5).setAttribute("ok", true);
      child.setAttribute(AttributeKey.stringArrayKey("list"), List.of("a", "ä"));
      child.addEvent("signed", Attributes.of(AttributeKey.stringKey("digest"), "0x00"));
      child.setStatus(StatusCode.ERROR, "late").end();
      parent.end();
      sent.add("[\"" + String.join("\",\"", child.getSpanContext().getTraceId(),
          child.getSpanContext().getSpanId(), parent.getSpanContext().getSpanId()) + "\"]");
    }
    sdk.getSdkLoggerProvider().get("java").logRecordBuilder().setSeverity(Severity.INFO)
        .setBody("hello").setAttribute(AttributeKey.stringKey("k"), "v").emit();
    sdk.getMeter("java").counterBuilder("tasks").build().add(5);
    sdk.getSdkTracerProvider().shutdown().join(60, TimeUnit.SECONDS);
    sdk.close();
    System.out.println("[" + String.join(",", sent) + "]");
  }
}
