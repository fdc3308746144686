"""The board "Network": is the Network healthy, and can what this board says be relied on?

Tasks and Duties have no time of their own: one belongs to the range in which its Task was submitted, by the
clock of the chain.
"""

from __future__ import annotations

from dashboards.panels import IN_NETWORK, Board, Panel, Threshold, counted
from nektar.model import Level
from nektar.rows import Cause, DutyState, FindingStatus, TaskState

_SUBMITTED = f"""SELECT network, task_hash, state FROM tasks
    WHERE {IN_NETWORK} AND (network, submitted_block) IN (
      SELECT network, number FROM blocks WHERE {IN_NETWORK} AND $__timeFilter(time)
    )"""  # noqa: S608
_TASKS = f"({_SUBMITTED})"
_DUTIES = f"""(
    SELECT network, operator, state FROM duties
    WHERE {IN_NETWORK} AND (network, task_hash) IN (SELECT network, task_hash FROM {_TASKS})
  )"""  # noqa: S608
_DIAGNOSES = f"""(
    SELECT cause FROM diagnoses
    WHERE {IN_NETWORK} AND (network, task_hash) IN (SELECT network, task_hash FROM {_TASKS})
  )"""  # noqa: S608
# Duties by Operator, one row each.
_BY_OPERATOR = ",\n  ".join(f"countIf(state = '{s}') AS {s}" for s in DutyState)
_LEVELS = "on_time, budget_left, burn_1h, burn_6h, burn_3d, alert"
_BY_STATUS = ", ".join(f"countIf(status = '{s}') AS {s}" for s in FindingStatus)

_BAD_FROM_ONE = (Threshold(None, "green"), Threshold(1, "red"))

NETWORK = Board(
    uid="nektar-network",
    title="Network",
    description="Is the Network healthy, and can what this board says be relied on?",
    panels=(
        Panel(
            id="newest_block",
            title="Which block is the newest?",
            description="Number of the newest block that is stored with all its events and calls.",
            kind="stat",
            sql=f"SELECT max(number) AS block FROM blocks WHERE {IN_NETWORK}",  # noqa: S608
            width=4,
        ),
        Panel(
            id="block_age",
            title="How far behind the chain is all of this?",
            description="Time since the newest stored block, by its own clock: the chain's block "
            "time and the pipeline's lag together.",
            kind="stat",
            sql="SELECT greatest(0, dateDiff('second', max(time), now())) AS age\n"
            f"FROM blocks WHERE {IN_NETWORK}",
            unit="s",
            # Ethereum has a block each 12 seconds: three missing are worth a look, ten are an outage.
            thresholds=(Threshold(None, "green"), Threshold(36, "yellow"), Threshold(120, "red")),
            width=4,
        ),
        Panel(
            id="on_time_by_stake",
            title="What share of stake was on time?",
            description="Duties that were signed by the deadline, of those decided (signed, late or missed), "
            "each weighted by its Operator's stake in the newest OperatorSet. Nothing where none is decided.",
            kind="stat",
            sql=f"""SELECT if(sum(decided) = 0, NULL, sum(on_time) / sum(decided)) AS share
FROM (
  SELECT
    toFloat64(o.stake) * (d.state IN ('signed', 'late', 'missed')) AS decided,
    toFloat64(o.stake) * (d.state = 'signed') AS on_time
  FROM {_DUTIES} AS d
  INNER JOIN operators AS o ON o.network = d.network AND o.operator = d.operator
)""",  # noqa: S608
            unit="percentunit",
            # Two thirds of stake is what a quorum usually takes.
            thresholds=(Threshold(None, "red"), Threshold(0.67, "yellow"), Threshold(0.9, "green")),
            width=4,
        ),
        Panel(
            id="reorged_blocks",
            title="How many blocks did reorgs take back?",
            description="Blocks of the range that were stored and do not stand; their rows were struck out.",
            kind="stat",
            sql=f"""SELECT countIf(undone) AS blocks
FROM (
  SELECT argMax(is_deleted, version) AS undone
  FROM blocks_rows
  WHERE {IN_NETWORK} AND $__timeFilter(time)
  GROUP BY network, number, hash
)""",  # noqa: S608
            width=4,
        ),
        Panel(
            id="coverage",
            title="How well were the blocks checked?",
            description="Blocks of the range by check level. Duties that rest on a block that is not proved "
            "are unknown, never missed.",
            kind="bar",
            sql=counted("level", Level, f"blocks WHERE {IN_NETWORK} AND $__timeFilter(time)"),
        ),
        Panel(
            id="tasks_by_state",
            title="How do Tasks end?",
            description="Tasks submitted in the range, by state.",
            kind="bar",
            sql=counted("state", TaskState, _TASKS),
        ),
        Panel(
            id="duties_by_state",
            title="Are Duties kept?",
            description="Duties (a Task and an Operator that owes it a response) by state.",
            kind="bar",
            sql=counted("state", DutyState, _DUTIES),
        ),
        Panel(
            id="missed_by_operator",
            title="Who misses Duties?",
            description="Missed Duties of each Operator, and of all.",
            kind="bar",
            sql=f"""SELECT operator, sum(n) AS missed
FROM (
  SELECT arrayJoin([operator, 'all']) AS operator, 0 AS n FROM operators WHERE {IN_NETWORK}
  UNION ALL
  SELECT arrayJoin([operator, 'all']) AS operator, state = 'missed' AS n FROM {_DUTIES}
  UNION ALL
  SELECT 'all' AS operator, 0 AS n
)
GROUP BY operator
ORDER BY operator = 'all', missed DESC, operator""",  # noqa: S608
            thresholds=_BAD_FROM_ONE,
        ),
        Panel(
            id="causes",
            title="Why are Duties not done in time?",
            description="Duties that are late, missed or unknown by cause, as telemetry tells it: an "
            "explanation, and no fact.",
            kind="bar",
            sql=counted("cause", Cause, _DIAGNOSES),
        ),
        Panel(
            id="responses_over_time",
            title="Do responses keep coming?",
            description="Aggregated responses and Operators' own attestations on the chain, by block time.",
            kind="timeseries",
            sql=f"""SELECT
  $__timeInterval(block_time) AS time,
  countIf(kind = 'responded') AS responses,
  countIf(kind = 'attested') AS attestations
FROM task_events
WHERE {IN_NETWORK} AND $__timeFilter(block_time)
GROUP BY time
ORDER BY time WITH FILL
  FROM toStartOfInterval($__fromTime, INTERVAL $__interval_s second)
  TO $__toTime + 1 STEP $__interval_s""",  # noqa: S608
        ),
        Panel(
            id="findings",
            title="What was found?",
            description="Findings by condition and status; a retracted one was taken away by a reorg.",
            kind="table",
            sql=f"""SELECT condition, {_BY_STATUS}
FROM (
  SELECT 'all' AS condition, '' AS status
  UNION ALL
  SELECT arrayJoin([condition, 'all']) AS condition, status FROM findings
  WHERE {IN_NETWORK} AND $__timeFilter(block_time)
)
GROUP BY condition
ORDER BY condition = 'all', condition""",  # noqa: S608
        ),
        Panel(
            id="operators",
            title="How does each Operator stand?",
            description="Operators, their stake in tokens in the newest OperatorSet, and how they kept the "
            "Duties of the range.",
            kind="table",
            # Stake in tokens: wei would be floats of 22 digits in Grafana. To a millionth, in whole numbers
            # first: ClickHouse makes 830.25e18 a float that is 830.2499999999999e18.
            sql=f"""SELECT
  o.operator AS operator, any(o.region) AS region, intDiv(any(o.stake), 1000000000000) / 1e6 AS stake,
  any(o.in_set) AS in_set,
  {_BY_OPERATOR}
FROM operators AS o
LEFT JOIN {_DUTIES} AS d ON d.network = o.network AND d.operator = o.operator
WHERE o.{IN_NETWORK}
GROUP BY o.network, o.operator
ORDER BY stake DESC, operator""",  # noqa: S608
            width=16,
        ),
        Panel(
            id="processors_behind",
            title="How many blocks is each processor behind?",
            description="Between the newest stored block and the newest whose consequences a processor has "
            "put out: what it decides is missing from this board for that long.",
            kind="bar",
            sql=f"""SELECT processor, greatest(0, toInt64(newest) - toInt64(block_number)) AS behind
FROM progress AS p
INNER JOIN (
  SELECT network, max(number) AS newest FROM blocks WHERE {IN_NETWORK} GROUP BY network
) AS b ON b.network = p.network
WHERE p.{IN_NETWORK}
ORDER BY processor""",  # noqa: S608
            thresholds=(Threshold(None, "green"), Threshold(3, "yellow"), Threshold(10, "red")),
        ),
        Panel(
            id="service_levels",
            title="Does each Operator keep the objective?",
            description="Share of stake on time in the last 30 days of the chain's time; what is left of the "
            "error budget; how many times as fast as it allows for that burns, and the alert that follows. "
            "And how many more Duties can be missed before missed_duty is met: of all the fewest.",
            kind="table",
            sql=f"""SELECT *
FROM (
  SELECT network, operator, {_LEVELS}, misses_left FROM service_levels WHERE {IN_NETWORK}
  UNION ALL
  SELECT network, 'all' AS operator, {_LEVELS}, misses_left
  FROM network_service_levels
  INNER JOIN (
    SELECT network, min(misses_left) AS misses_left FROM service_levels WHERE {IN_NETWORK} GROUP BY network
  ) AS fewest USING (network)
)
ORDER BY network, operator = 'all', budget_left, operator""",  # noqa: S608
            width=16,
        ),
        Panel(
            id="spans_by_service",
            title="Who reports what it does?",
            description="Spans of the range by service, of every Network: a span names none.",
            kind="bar",
            sql="""SELECT service, sum(n) AS spans
FROM (
  SELECT 'all' AS service, 0 AS n
  UNION ALL
  SELECT arrayJoin([ServiceName, 'all']) AS service, 1 AS n FROM otel_traces WHERE $__timeFilter(Timestamp)
)
GROUP BY service
ORDER BY service = 'all', service""",
        ),
    ),
)
