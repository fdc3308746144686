-- Telemetry comes in many small inserts, and merging them takes twice as long as they do where each part is merged
-- with a few others at a time: so with some more (ClickHouse's default is 5). Old parts are merged all the same.

ALTER TABLE `otel_traces` MODIFY SETTING merge_selector_base = 15;
ALTER TABLE `otel_traces_trace_id_ts` MODIFY SETTING merge_selector_base = 15;
ALTER TABLE `otel_logs` MODIFY SETTING merge_selector_base = 15;
ALTER TABLE `otel_metrics_gauge` MODIFY SETTING merge_selector_base = 15;
ALTER TABLE `otel_metrics_sum` MODIFY SETTING merge_selector_base = 15;
ALTER TABLE `otel_metrics_histogram` MODIFY SETTING merge_selector_base = 15;
ALTER TABLE `otel_metrics_exponential_histogram` MODIFY SETTING merge_selector_base = 15;
ALTER TABLE `otel_metrics_summary` MODIFY SETTING merge_selector_base = 15;
