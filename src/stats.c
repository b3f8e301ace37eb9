/*-------------------------------------------------------------------------
 * stats.c
 *		What the guard knows and has counted, as rows for the views.
 *
 * A row shows a target by its URL; the guard holds no secrets.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "guard.h"
#include "messages.h"
#include "settings.h"

/* The columns of sw_guest_token_stat() */
#define N_STAT_COLUMNS	22

/* The columns of sw_guest_token_latency() */
enum
{
	COLUMN_TARGET,
	COLUMN_LE_MS,
	COLUMN_CALLS,
	N_LATENCY_COLUMNS
};

PG_FUNCTION_INFO_V1(sw_guest_token_stat);
PG_FUNCTION_INFO_V1(sw_guest_token_latency);
PG_FUNCTION_INFO_V1(sw_guest_token_stat_reset);

/* Puts what is known of a target into rows. */
typedef void (*PutTarget) (ReturnSetInfo *result,
						   const GuardSnapshot *snapshot);

static Datum put_targets(FunctionCallInfo fcinfo, PutTarget put);
static void need_guard(void);
static void put_stat(ReturnSetInfo *result, const GuardSnapshot *snapshot);
static void put_latencies(ReturnSetInfo *result,
						  const GuardSnapshot *snapshot);

/*
 * sw_guest_token_stat() returns setof record: a row for each target that was
 * called since the server's start
 */
Datum
sw_guest_token_stat(PG_FUNCTION_ARGS)
{
	return put_targets(fcinfo, put_stat);
}

/*
 * sw_guest_token_latency()
 *		returns table (target text, le_ms double precision, calls bigint)
 *
 * How many calls took at most le_ms, including those of the rows before.
 */
Datum
sw_guest_token_latency(PG_FUNCTION_ARGS)
{
	return put_targets(fcinfo, put_latencies);
}

static Datum
put_targets(FunctionCallInfo fcinfo, PutTarget put)
{
	GuardSnapshot snapshot;
	Guarded    *g;

	need_guard();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; (g = sgt_get_guarded(i)) != NULL; i++)
	{
		sgt_take_snapshot(g, sgt_get_limits(), &snapshot);
		put((ReturnSetInfo *) fcinfo->resultinfo, &snapshot);
	}
	return (Datum) 0;
}

/*
 * sw_guest_token_stat_reset() returns void: all counters begin again; what the
 * guard knows of the API stays.
 */
Datum
sw_guest_token_stat_reset(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	need_guard();
	sgt_reset_counters();
	PG_RETURN_VOID();
}

static void
need_guard(void)
{
	if (!sgt_is_preloaded())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sw_guest_token must be loaded via \"shared_preload_libraries\"")));
}

static void
put_stat(ReturnSetInfo *result, const GuardSnapshot *snapshot)
{
	const GuardCounters *counters = &snapshot->counters;
	Datum		values[N_STAT_COLUMNS] = {0};
	bool		nulls[N_STAT_COLUMNS] = {false};
	int64		n_calls = 0;
	int			n = 0;

	for (int i = 0; i < N_CALL_ENDS; i++)
		n_calls += counters->ends[i];

	values[n++] = CStringGetTextDatum(snapshot->url);
	values[n++] = CStringGetTextDatum(snapshot->state.is_open ? "open" : "closed");
	nulls[n] = !snapshot->state.is_open;
	values[n++] = TimestampTzGetDatum(GetCurrentTimestamp() +
									  snapshot->state.probe_in_us);
	values[n++] = Int32GetDatum(snapshot->sessions);
	values[n++] = Int64GetDatum(n_calls);
	values[n++] = Int64GetDatum(counters->requests);
	for (int i = CALL_ISSUED; i <= CALL_CANCELLED; i++)
		values[n++] = Int64GetDatum(counters->ends[i]);
	values[n++] = Int64GetDatum(counters->retries);
	values[n++] = Int64GetDatum(counters->retries_denied);
	for (int i = CALL_SUSPENDED; i < N_CALL_ENDS; i++)
		values[n++] = Int64GetDatum(counters->ends[i]);
	values[n++] = Int64GetDatum(counters->opened);
	nulls[n] = counters->last_opened == 0;
	values[n++] = TimestampTzGetDatum(counters->last_opened);
	nulls[n] = counters->last_error == 0;
	values[n++] = CStringGetTextDatum(unpack_sql_state(counters->last_error));
	values[n++] = Float8GetDatum(counters->total_us / 1000.0);
	values[n++] = TimestampTzGetDatum(counters->reset);
	Assert(n == N_STAT_COLUMNS);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_latencies(ReturnSetInfo *result, const GuardSnapshot *snapshot)
{
	Datum		values[N_LATENCY_COLUMNS];
	bool		nulls[N_LATENCY_COLUMNS] = {false};
	int64		n_calls = 0;

	values[COLUMN_TARGET] = CStringGetTextDatum(snapshot->url);
	for (int i = 0; i < SGT_N_LATENCIES; i++)
	{
		n_calls += snapshot->counters.latencies[i];
		values[COLUMN_LE_MS] = Float8GetDatum(i < SGT_N_LATENCIES - 1 ?
											  (double) (1 << i) : INFINITY);
		values[COLUMN_CALLS] = Int64GetDatum(n_calls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}
