/*-------------------------------------------------------------------------
 * scan.c
 *		The plan node that reads ahead, "Guest Tokens".
 *
 * Reads rows from its child before they are asked for, has their calls in
 * flight together, and hands the rows on in the child's order.  It knows the
 * executor, but not which plans get the node (plan.c) or how requests travel
 * (what is below tokens.c).
 *
 * 1. If the statement ends normally, no row is read that it would not have
 *    read row by row as well.
 * 2. A failure is raised when its row's turn comes.  Once one is known, no
 *    further row is read.
 * 3. Without the setting, in EvalPlanQual, and where it is not known how many
 *    rows are wanted, the node reads one row at a time.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "compat.h"
#include "rows.h"
#include "scan.h"
#include "settings.h"
#include "tokens.h"

#define SCAN_NAME			"Guest Tokens"

/*
 * How many rows are held for each request that may be in flight: with only
 * one, a slow answer would keep those behind it from being replaced.
 */
#define ROWS_PER_REQUEST	2

/* A call of the node */
typedef struct RowCall
{
	FuncExpr   *func;
	List	   *args;			/* ExprStates */
	bool		is_try;
	Index		rti;			/* 0: it has no entry in the range table */
	TupleDesc	desc;			/* of its result; NULL: not looked up yet */
	TupleTableSlot *slot;		/* for EvalPlanQual */
} RowCall;

/* A row that has been read and not handed on */
typedef struct Row
{
	MinimalTuple tuple;			/* of the child */
	int			n_waiting;		/* calls without a result */
	bool		is_absent;		/* EvalPlanQual has no such row */
	CallError  *error;			/* to be raised; NULL: none */
	int			error_call;		/* the call that failed */
	Datum	   *values;			/* results; 0: there is none */
} Row;

typedef struct ScanNode
{
	CustomScanState css;
	dlist_node	node;			/* in "nodes" */
	MemoryContext context;		/* holds all that follows */
	MemoryContextCallback callback; /* takes it out of the list */

	int			n_calls;
	RowCall    *calls;
	ExprContext *row_context;	/* for the arguments of one row */
	TupleTableSlot *child_slot; /* for a row that is handed on */
	TokenStream *stream;

	Row		   *rows;			/* a ring; NULL: not allocated yet */
	int			max_rows;
	int			n_rows;
	int			first;
	Size		size;			/* of their tuples */
	Datum	   *handed_on;		/* results of the last row */

	bool		is_exhausted;	/* the child has no more rows */
	bool		has_failed;		/* a row will be an error */

	int			bounds;
	ExprState  *limit_count;	/* NULL: there is none */
	ExprState  *limit_offset;
	int64		limit;			/* of both, -1: not evaluated yet */
	int64		n_handed_on;	/* since the last rescan */
	uint64		run_number;		/* in which it ran last */
	int64		n_in_run;		/* handed on in it */
} ScanNode;

/* An ExecutorRun() in progress */
typedef struct Run
{
	uint64		number;
	EState	   *estate;
	uint64		count;			/* the rows asked for; 0: all */
	struct Run *outer;
} Run;

static dlist_head nodes = DLIST_STATIC_INIT(nodes);
static Run *current_run = NULL;
static uint64 last_run_number = 0;
static ExecutorRun_hook_type next_run_hook = NULL;

static Node *create_state(CustomScan *cscan);
static void begin_scan(CustomScanState *css, EState *estate, int eflags);
static TupleTableSlot *exec_scan(CustomScanState *css);
static void rescan(CustomScanState *css);
static void end_scan(CustomScanState *css);
static void explain_scan(CustomScanState *css, List *ancestors,
						 ExplainState *es);
static void run_executor(QueryDesc *desc, ScanDirection direction,
						 uint64 count SGT_RUN_PARAM);
static void forget_node(void *arg);
static void check_permission(Oid function);
static void read_ahead(ScanNode *scan);
static int64 count_wanted(ScanNode *scan);
static void pass_limit(ScanNode *scan);
static int64 eval_limit(ScanNode *scan);
static void read_row(ScanNode *scan);
static void make_ring(ScanNode *scan);
static void make_call(ScanNode *scan, Row *row, int number);
static bool fetch_epq_row(ScanNode *scan, Row *row, RowCall *call,
						  int number);
static void take_result(void *arg, int tag, const TokenPair *pair,
						const CallError *error);
static TupleTableSlot *hand_on(ScanNode *scan);
static void drop_rows(ScanNode *scan);

static const CustomScanMethods scan_methods = {
	.CustomName = SCAN_NAME,
	.CreateCustomScanState = create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = SCAN_NAME,
	.BeginCustomScan = begin_scan,
	.ExecCustomScan = exec_scan,
	.EndCustomScan = end_scan,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain_scan
};

/*
 * Plans
 */

void
sgt_register_scan(void)
{
	RegisterCustomScanMethods(&scan_methods);
}

bool
sgt_is_scan(const Plan *plan)
{
	return IsA(plan, CustomScan) &&
		((const CustomScan *) plan)->methods == &scan_methods;
}

/*
 * Makes a node with the costs of "model", whose place it takes.  Target list,
 * qual and the plan's number are for the caller to fill in.  "limit" is the
 * LIMIT that bounds it, or NULL.
 *
 * A plan with the node runs in the session that has made it, so now is the
 * time to hook into ExecutorRun(), to see what it is asked for.
 */
CustomScan *
sgt_make_scan(const Plan *model, Plan *child, ScanCall *calls, int n_calls,
			  int bounds, const Limit *limit)
{
	static bool is_hooked = false;
	CustomScan *cscan = makeNode(CustomScan);
	List	   *are_try = NIL;
	List	   *rtis = NIL;
	ListCell   *lc;

	if (!is_hooked)
	{
		next_run_hook = ExecutorRun_hook;
		ExecutorRun_hook = run_executor;
		is_hooked = true;
	}

	cscan->scan.plan = *model;
	cscan->scan.plan.type = T_CustomScan;
	cscan->scan.plan.parallel_aware = false;
	cscan->scan.plan.parallel_safe = false;
	cscan->scan.plan.async_capable = false;
	cscan->scan.plan.targetlist = NIL;
	cscan->scan.plan.qual = NIL;
	cscan->scan.plan.initPlan = NIL;
	cscan->scan.plan.lefttree = child;
	cscan->scan.plan.righttree = NULL;
	cscan->methods = &scan_methods;

	for (int i = 0; i < n_calls; i++)
	{
		cscan->custom_scan_tlist =
			lappend(cscan->custom_scan_tlist,
					makeTargetEntry((Expr *) calls[i].func, i + 1, NULL, false));
		are_try = lappend_int(are_try, calls[i].is_try);
		rtis = lappend_int(rtis, (int) calls[i].rti);
	}
	foreach(lc, child->targetlist)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		cscan->custom_scan_tlist =
			lappend(cscan->custom_scan_tlist,
					makeTargetEntry((Expr *) makeVarFromTargetEntry(OUTER_VAR, tle),
									list_length(cscan->custom_scan_tlist) + 1,
									NULL, false));
	}
	cscan->custom_private = list_make3(list_make1_int(bounds), are_try, rtis);
	if (limit)
		cscan->custom_exprs = list_make2(copyObject(limit->limitCount),
										 copyObject(limit->limitOffset));
	return cscan;
}

/*
 * Runs
 */

/*
 * Notes how many rows are asked for, and abandons what is on its way if the
 * run fails: the requests of a portal from outside the failed subtransaction
 * would otherwise live on.
 */
static void
run_executor(QueryDesc *desc, ScanDirection direction,
			 uint64 count SGT_RUN_PARAM)
{
	Run			run = {
		.number = ++last_run_number,
		.estate = desc->estate,
		.count = count,
		.outer = current_run
	};

	current_run = &run;
	PG_TRY();
	{
		if (next_run_hook)
			next_run_hook(desc, direction, count SGT_RUN_ARG);
		else
			standard_ExecutorRun(desc, direction, count SGT_RUN_ARG);
	}
	PG_CATCH();
	{
		dlist_iter	iter;

		current_run = run.outer;
		dlist_foreach(iter, &nodes)
		{
			ScanNode   *scan = dlist_container(ScanNode, node, iter.cur);

			if (scan->run_number == run.number)
				sgt_end_calls(scan->stream);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	current_run = run.outer;
}

/*
 * The node's life
 */

static Node *
create_state(CustomScan *cscan)
{
	ScanNode   *scan = (ScanNode *) newNode(sizeof(ScanNode),
											T_CustomScanState);

	(void) cscan;
	scan->css.methods = &exec_methods;
	return (Node *) scan;
}

static void
begin_scan(CustomScanState *css, EState *estate, int eflags)
{
	ScanNode   *scan = (ScanNode *) css;
	CustomScan *cscan = castNode(CustomScan, css->ss.ps.plan);
	PlanState  *planstate = &css->ss.ps;
	List	   *are_try = lsecond(cscan->custom_private);
	List	   *rtis = lthird(cscan->custom_private);
	MemoryContext oldcontext;

	outerPlanState(css) = ExecInitNode(outerPlan(cscan), estate, eflags);

	scan->context = AllocSetContextCreate(estate->es_query_cxt,
										  "sw_guest_token scan",
										  ALLOCSET_DEFAULT_SIZES);
	scan->callback.func = forget_node;
	scan->callback.arg = scan;
	MemoryContextRegisterResetCallback(scan->context, &scan->callback);
	dlist_push_tail(&nodes, &scan->node);

	oldcontext = MemoryContextSwitchTo(scan->context);
	scan->bounds = linitial_int((List *) linitial(cscan->custom_private));
	scan->n_calls = list_length(are_try);
	scan->calls = palloc0(scan->n_calls * sizeof(RowCall));
	scan->handed_on = palloc0(scan->n_calls * sizeof(Datum));
	scan->limit = -1;
	scan->stream = sgt_begin_stream(scan->context, take_result, scan);
	MemoryContextSwitchTo(oldcontext);

	for (int i = 0; i < scan->n_calls; i++)
	{
		RowCall    *call = &scan->calls[i];

		call->func = castNode(FuncExpr,
							  list_nth_node(TargetEntry, cscan->custom_scan_tlist,
											i)->expr);
		check_permission(call->func->funcid);
		call->args = ExecInitExprList(call->func->args, planstate);
		call->is_try = list_nth_int(are_try, i);
		call->rti = (Index) list_nth_int(rtis, i);
	}
	if (cscan->custom_exprs)
	{
		scan->limit_count = ExecInitExpr(linitial(cscan->custom_exprs), planstate);
		scan->limit_offset = ExecInitExpr(lsecond(cscan->custom_exprs), planstate);
	}
	scan->row_context = CreateExprContext(estate);
	scan->child_slot =
		ExecInitExtraTupleSlot(estate, ExecGetResultType(outerPlanState(css)),
							   &TTSOpsMinimalTuple);
}

static void
forget_node(void *arg)
{
	dlist_delete(&((ScanNode *) arg)->node);
}

/* As ExecInitFunc() does. */
static void
check_permission(Oid function)
{
	AclResult	result = SGT_FUNCTION_ACLCHECK(function, GetUserId(), ACL_EXECUTE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

static void
end_scan(CustomScanState *css)
{
	ScanNode   *scan = (ScanNode *) css;

	/* it may hold a tuple that is in the context */
	ExecClearTuple(scan->child_slot);
	MemoryContextDelete(scan->context);
	ExecEndNode(outerPlanState(css));
}

static void
rescan(CustomScanState *css)
{
	ScanNode   *scan = (ScanNode *) css;

	sgt_end_calls(scan->stream);
	drop_rows(scan);
	scan->is_exhausted = false;
	scan->has_failed = false;
	scan->limit = -1;
	scan->n_handed_on = 0;
	pass_limit(scan);
	if (outerPlanState(css)->chgParam == NULL)
		ExecReScan(outerPlanState(css));
}

static void
explain_scan(CustomScanState *css, List *ancestors, ExplainState *es)
{
	ScanNode   *scan = (ScanNode *) css;
	const StreamCounts *counts = sgt_get_stream_counts(scan->stream);

	(void) ancestors;
	ExplainPropertyInteger("Calls per Row", NULL, scan->n_calls, es);
	if (!es->analyze)
		return;
	ExplainPropertyInteger("Requests", NULL, counts->requests, es);
	ExplainPropertyInteger("Requests in Flight", NULL, counts->most_in_flight, es);
	ExplainPropertyInteger("Requests Abandoned", NULL, counts->abandoned, es);
	ExplainPropertyInteger("Retries", NULL, counts->retries, es);
}

/*
 * Rows
 */

static TupleTableSlot *
exec_scan(CustomScanState *css)
{
	ScanNode   *scan = (ScanNode *) css;
	ExprContext *econtext = css->ss.ps.ps_ExprContext;
	TupleTableSlot *slot;

	if (current_run && current_run->number != scan->run_number)
	{
		scan->run_number = current_run->number;
		scan->n_in_run = 0;
	}
	if (scan->limit < 0)
		pass_limit(scan);
	for (;;)
	{
		ResetExprContext(econtext);
		read_ahead(scan);
		if (scan->n_rows == 0)
		{
			sgt_leave_stream(scan->stream);
			ExecClearTuple(css->ss.ss_ScanTupleSlot);
			return css->ss.ps.ps_ProjInfo ?
				ExecClearTuple(css->ss.ps.ps_ResultTupleSlot) : NULL;
		}
		while (scan->rows[scan->first].n_waiting > 0)
		{
			if (!sgt_take_result(scan->stream))
				elog(ERROR, "call for a guest token has no request");
			read_ahead(scan);
		}

		slot = hand_on(scan);
		if (slot == NULL)
			continue;
		/* the quals may run for a long time, too */
		sgt_leave_stream(scan->stream);
		econtext->ecxt_scantuple = slot;
		if (!ExecQual(css->ss.ps.qual, econtext))
		{
			InstrCountFiltered1(css, 1);
			continue;
		}
		scan->n_handed_on++;
		scan->n_in_run++;
		return css->ss.ps.ps_ProjInfo ?
			ExecProject(css->ss.ps.ps_ProjInfo) : slot;
	}
}

/*
 * Reads as many rows as are wanted, have places and fit into work_mem, but at
 * least one if there is any.
 */
static void
read_ahead(ScanNode *scan)
{
	int64		n_wanted;

	/* before anything runs that may change the setting, such as the child */
	if (scan->rows == NULL)
		make_ring(scan);
	sgt_poll_requests();
	while (sgt_has_result(scan->stream))
		(void) sgt_take_result(scan->stream);

	n_wanted = count_wanted(scan);
	while (!scan->is_exhausted && !scan->has_failed &&
		   (scan->n_rows == 0 ||
			(scan->n_rows < n_wanted && scan->size < work_mem * (Size) 1024 &&
			 sgt_has_place(scan->stream))))
	{
		read_row(scan);
		sgt_poll_requests();
	}
}

/*
 * How many rows the node may hold.
 */
static int64
count_wanted(ScanNode *scan)
{
	EState	   *estate = scan->css.ss.ps.state;
	int64		n;

	if (!sgt_reads_ahead() || estate->es_epq_active)
		return 1;
	n = Min(sgt_get_limits()->max_concurrency * ROWS_PER_REQUEST,
			scan->max_rows);
	if (scan->bounds & SCAN_BOUND_BY_RUN)
	{
		Run		   *run = current_run;

		if (run == NULL || run->estate != estate)
			return 1;
		if (run->count > 0)
		{
			if (scan->bounds & (SCAN_BOUND_BY_LIMIT | SCAN_BOUND_BY_OTHERS))
				return 1;
			n = Min(n, (int64) Min(run->count, PG_INT64_MAX) - scan->n_in_run);
		}
	}
	if (scan->bounds & SCAN_BOUND_BY_LIMIT)
		n = Min(n, eval_limit(scan) - scan->n_handed_on);
	return n;
}

/*
 * Tells the child how many of its rows are read, as LIMIT would if the node
 * were not there: a sort then keeps only those.
 */
static void
pass_limit(ScanNode *scan)
{
	int64		limit;

	if (!(scan->bounds & SCAN_PASSES_LIMIT))
		return;
	limit = eval_limit(scan);
	ExecSetTupleBound(limit == PG_INT64_MAX ? -1 : limit,
					  outerPlanState(&scan->css));
}

/*
 * How many rows LIMIT reads; it has already refused negative numbers.
 */
static int64
eval_limit(ScanNode *scan)
{
	ExprState  *exprs[] = {scan->limit_count, scan->limit_offset};
	int64		sum = 0;

	if (scan->limit >= 0)
		return scan->limit;
	for (int i = 0; i < (int) lengthof(exprs); i++)
	{
		bool		isnull = true;
		Datum		value = 0;

		if (exprs[i])
			value = ExecEvalExprSwitchContext(exprs[i], scan->row_context, &isnull);
		if (isnull && i == 0)
			sum = PG_INT64_MAX;
		else if (!isnull)
			sum = DatumGetInt64(value) > PG_INT64_MAX - sum ? PG_INT64_MAX :
				sum + DatumGetInt64(value);
	}
	ResetExprContext(scan->row_context);
	return scan->limit = sum;
}

static void
read_row(ScanNode *scan)
{
	TupleTableSlot *slot;
	MemoryContext oldcontext;
	Row		   *row;

	sgt_rest_stream(scan->stream);
	slot = ExecProcNode(outerPlanState(&scan->css));
	if (TupIsNull(slot))
	{
		scan->is_exhausted = true;
		return;
	}

	Assert(scan->n_rows < scan->max_rows);
	oldcontext = MemoryContextSwitchTo(scan->context);
	row = &scan->rows[(scan->first + scan->n_rows) % scan->max_rows];
	row->tuple = ExecCopySlotMinimalTuple(slot);
	scan->size += row->tuple->t_len;
	row->n_waiting = 0;
	row->is_absent = false;
	row->error = NULL;
	MemoryContextSwitchTo(oldcontext);
	scan->n_rows++;

	scan->row_context->ecxt_outertuple = slot;
	oldcontext = MemoryContextSwitchTo(scan->row_context->ecxt_per_tuple_memory);
	for (int i = 0; i < scan->n_calls && !row->error; i++)
		make_call(scan, row, i);
	MemoryContextSwitchTo(oldcontext);
	ResetExprContext(scan->row_context);
}

static void
make_ring(ScanNode *scan)
{
	int			max_rows = sgt_get_limits()->max_concurrency * ROWS_PER_REQUEST;
	Row		   *rows = MemoryContextAllocZero(scan->context,
											  max_rows * sizeof(Row));
	Datum	   *values = MemoryContextAllocZero(scan->context,
												max_rows * scan->n_calls * sizeof(Datum));

	for (int i = 0; i < max_rows; i++)
		rows[i].values = values + i * scan->n_calls;
	scan->rows = rows;
	scan->max_rows = max_rows;
}

/*
 * Evaluates the arguments of one of a row's calls, and submits it.
 */
static void
make_call(ScanNode *scan, Row *row, int number)
{
	RowCall    *call = &scan->calls[number];
	NullableDatum values[SGT_N_ARGS];
	GuestTokenArgs args;
	MemoryContext oldcontext;
	ListCell   *lc;

	if (call->desc == NULL)
	{
		Oid			type = call->func->funcresulttype;
		TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);

		sgt_check_result_type(type, desc, call->is_try ? SGT_N_COLUMNS :
							  SGT_N_PAIR_COLUMNS);
		oldcontext = MemoryContextSwitchTo(scan->context);
		call->desc = BlessTupleDesc(CreateTupleDescCopy(desc));
		MemoryContextSwitchTo(oldcontext);
		ReleaseTupleDesc(desc);
	}
	if (call->rti && fetch_epq_row(scan, row, call, number))
		return;
	sgt_rest_stream(scan->stream);

	foreach(lc, call->args)
	{
		NullableDatum *value = &values[foreach_current_index(lc)];

		value->value = ExecEvalExpr((ExprState *) lfirst(lc), scan->row_context,
									&value->isnull);
	}
	sgt_get_args(values, &args);
	/* they may have changed the settings, as the child may have */
	sgt_renew_stream(scan->stream);
	row->n_waiting++;
	sgt_submit_call(scan->stream, &args,
					(int) (row - scan->rows) * scan->n_calls + number);
}

/*
 * Within EvalPlanQual, fetches the row that the function has returned before;
 * false if the row has to be computed.  ExecScanFetch() does the same for
 * other nodes.
 */
static bool
fetch_epq_row(ScanNode *scan, Row *row, RowCall *call, int number)
{
	EPQState   *epq = scan->css.ss.ps.state->es_epq_active;
	MemoryContext oldcontext;

	if (epq == NULL || epq->relsubs_rowmark[call->rti - 1] == NULL)
		return false;

	oldcontext = MemoryContextSwitchTo(scan->context);
	if (call->slot == NULL)
		call->slot = MakeSingleTupleTableSlot(call->desc, &TTSOpsVirtual);
	row->is_absent = !EvalPlanQualFetchRowMark(epq, call->rti, call->slot) ||
		TupIsNull(call->slot);
	if (!row->is_absent)
		row->values[number] = ExecFetchSlotHeapTupleDatum(call->slot);
	MemoryContextSwitchTo(oldcontext);
	return true;
}

/*
 * Takes the result of a call, which may come at any time while requests go
 * on.
 */
static void
take_result(void *arg, int tag, const TokenPair *pair, const CallError *error)
{
	ScanNode   *scan = arg;
	Row		   *row = &scan->rows[tag / scan->n_calls];
	int			number = tag % scan->n_calls;
	RowCall    *call = &scan->calls[number];
	MemoryContext oldcontext = MemoryContextSwitchTo(scan->context);
	Datum		composite;

	row->n_waiting--;
	if (error && sgt_is_raised(error, call->is_try))
	{
		scan->has_failed = true;
		if (row->error == NULL || number < row->error_call)
		{
			row->error = sgt_copy_error(error);
			row->error_call = number;
		}
	}
	else
	{
		/* in one piece, which can be freed */
		MemoryContextSwitchTo(oldcontext);
		composite = sgt_make_row(call->desc, pair, error);
		MemoryContextSwitchTo(scan->context);
		row->values[number] = datumCopy(composite, false, -1);
	}
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Takes the first row out of the ring, as a scan tuple; NULL if it is absent.
 * Raises the row's error, if it has one.  Frees what was handed on before.
 */
static TupleTableSlot *
hand_on(ScanNode *scan)
{
	TupleTableSlot *slot = scan->css.ss.ss_ScanTupleSlot;
	TupleTableSlot *child = scan->child_slot;
	Row		   *row = &scan->rows[scan->first];
	int			n_columns = child->tts_tupleDescriptor->natts;

	if (row->error)
	{
		/* the client may not read it for a long time */
		sgt_rest_stream(scan->stream);
		sgt_raise_error(row->error);
	}

	ExecClearTuple(slot);
	scan->size -= row->tuple->t_len;
	ExecStoreMinimalTuple(row->tuple, child, true);
	slot_getallattrs(child);
	for (int i = 0; i < scan->n_calls; i++)
	{
		if (scan->handed_on[i])
			pfree(DatumGetPointer(scan->handed_on[i]));
		scan->handed_on[i] = row->values[i];
		row->values[i] = (Datum) 0;
		slot->tts_values[i] = scan->handed_on[i];
		slot->tts_isnull[i] = false;
	}
	for (int i = 0; i < n_columns; i++)
	{
		slot->tts_values[scan->n_calls + i] = child->tts_values[i];
		slot->tts_isnull[scan->n_calls + i] = child->tts_isnull[i];
	}
	row->tuple = NULL;
	scan->first = (scan->first + 1) % scan->max_rows;
	scan->n_rows--;
	return row->is_absent ? NULL : ExecStoreVirtualTuple(slot);
}

static void
drop_rows(ScanNode *scan)
{
	while (scan->n_rows > 0)
	{
		Row		   *row = &scan->rows[scan->first];

		scan->size -= row->tuple->t_len;
		pfree(row->tuple);
		for (int i = 0; i < scan->n_calls; i++)
		{
			if (row->values[i])
				pfree(DatumGetPointer(row->values[i]));
			row->values[i] = (Datum) 0;
		}
		scan->first = (scan->first + 1) % scan->max_rows;
		scan->n_rows--;
	}
}
