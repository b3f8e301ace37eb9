/*-------------------------------------------------------------------------
 * plan.c
 *		Which queries read ahead.
 *
 * It works on finished plans.  Where one calls sw_create_guest_token() or
 * sw_try_create_guest_token() row by row, and the parent is sure to ask for
 * more than one row, rewrite.c puts the node of scan.c there instead.
 *
 * A support function notes that a query mentions functions that issue tokens,
 * so that other queries pay only for a comparison.
 *
 * It also keeps Memoize out of such queries.  The planner overlooks that a
 * function in FROM is volatile, and would let rows with the same arguments
 * share a token.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/pathnodes.h"
#include "nodes/supportnodes.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "plan.h"
#include "rewrite.h"
#include "scan.h"
#include "settings.h"

/*
 * Cursors are left alone: those of DECLARE CURSOR and PL/pgSQL want a fast
 * start, and others may be scrolled.  PL/pgSQL says that none of its queries
 * are scrolled.
 */
#define CURSOR_OPTIONS	(CURSOR_OPT_SCROLL | CURSOR_OPT_HOLD | CURSOR_OPT_FAST_PLAN)

static planner_hook_type next_planner_hook = NULL;
static PGFunction create_function = NULL;
static PGFunction try_function = NULL;
static Mentioned mentioned;
static int	n_plannings = 0;	/* nested calls of plan_query() */

PG_FUNCTION_INFO_V1(sw_guest_token_support);

static PlannedStmt *plan_query(Query *parse, const char *query_string,
							   int cursor_options,
							   ParamListInfo params SGT_PLANNER_PARAM);
static void rewrite_statement(PlannedStmt *stmt, const Mentioned *mentions);
static void look_at(Rewrite *rw, Plan *plan);
static Plan *visit(Rewrite *rw, Plan *plan, Demand demand);
static void visit_list(Rewrite *rw, List *plans, Demand demand);
static void visit_append(Rewrite *rw, Append *append, Demand demand);
static Demand demand_of_limit(const Limit *limit, Demand demand);
static bool may_differ(Node *node, void *context);
static bool is_foreign(Oid function, void *context);

/*
 * Planning
 */

/*
 * Called when the library is loaded, with the functions that count as calls.
 */
void
sgt_install_planner(PGFunction create, PGFunction try_create)
{
	create_function = create;
	try_function = try_create;
	sgt_register_scan();
	next_planner_hook = planner_hook;
	planner_hook = plan_query;
}

/*
 * sw_guest_token_support(internal) returns internal
 *
 * The planner asks for a simpler form of each call in each query, and does so
 * before it joins anything to it.
 */
Datum
sw_guest_token_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSimplify))
	{
		Oid			function = ((SupportRequestSimplify *) request)->fcall->funcid;
		PlannerInfo *root = ((SupportRequestSimplify *) request)->root;
		int			i = 0;

		while (i < mentioned.n && mentioned.functions[i] != function)
			i++;
		if (i == mentioned.n && i < MAX_FUNCTIONS)
			mentioned.functions[mentioned.n++] = function;
		/* plan_query() restores the setting */
		if (root && n_plannings > 0)
			SGT_FORBID_MEMOIZE(root);
	}
	PG_RETURN_POINTER(NULL);
}

static PlannedStmt *
plan_query(Query *parse, const char *query_string, int cursor_options,
		   ParamListInfo params SGT_PLANNER_PARAM)
{
	/* planning may run functions, which plan queries of their own */
	Mentioned	outer = mentioned;
	bool		memoize = enable_memoize;
	PlannedStmt *stmt;

	mentioned.n = 0;
	n_plannings++;
	PG_TRY();
	{
		stmt = next_planner_hook ?
			next_planner_hook(parse, query_string, cursor_options, params SGT_PLANNER_ARG) :
			standard_planner(parse, query_string, cursor_options, params SGT_PLANNER_ARG);
		if (mentioned.n > 0 && sgt_reads_ahead() &&
			(cursor_options & CURSOR_OPTIONS) == 0)
			rewrite_statement(stmt, &mentioned);
	}
	PG_FINALLY();
	{
		/* a function may also catch the error of such a query */
		mentioned = outer;
		enable_memoize = memoize;
		n_plannings--;
	}
	PG_END_TRY();
	return stmt;
}

static void
rewrite_statement(PlannedStmt *stmt, const Mentioned *mentions)
{
	Rewrite		rw = {.stmt = stmt};
	Demand		by_run = {.is_known = true,.bounds = SCAN_BOUND_BY_RUN};
	Demand		unknown = {.is_known = false};
	ListCell   *lc;

	for (int i = 0; i < mentions->n; i++)
	{
		FmgrInfo	info;

		/* with SET or SECURITY DEFINER, fmgr would call another function */
		fmgr_info(mentions->functions[i], &info);
		if ((info.fn_addr != create_function && info.fn_addr != try_function) ||
			info.fn_strict)
			continue;
		rw.are_try[rw.mentioned.n] = info.fn_addr == try_function;
		rw.mentioned.functions[rw.mentioned.n++] = mentions->functions[i];
	}
	if (rw.mentioned.n == 0)
		return;

	rw.are_judged = palloc0(list_length(stmt->subplans) * sizeof(bool));
	rw.are_pure = palloc0(list_length(stmt->subplans) * sizeof(bool));
	rw.setters = palloc0(list_length(stmt->paramExecTypes) * sizeof(int));
	look_at(&rw, stmt->planTree);
	foreach(lc, stmt->subplans)
		look_at(&rw, lfirst(lc));
	stmt->planTree = visit(&rw, stmt->planTree, by_run);
	visit_list(&rw, stmt->subplans, unknown);
}

/*
 * Fills in what concerns the statement as a whole.
 */
static void
look_at(Rewrite *rw, Plan *plan)
{
	ListCell   *lc;
	ListCell   *param;

	if (plan == NULL)
		return;
	check_stack_depth();
	rw->next_plan_id = Max(rw->next_plan_id, plan->plan_node_id + 1);
	foreach(lc, plan->initPlan)
	{
		const SubPlan *subplan = lfirst_node(SubPlan, lc);

		foreach(param, subplan->setParam)
			rw->setters[lfirst_int(param)] = subplan->plan_id;
	}
	foreach(lc, sgt_get_children(plan))
		look_at(rw, lfirst(lc));
}

/*
 * Demand
 */

/*
 * Puts nodes into a plan, the lowest first, and returns what takes its place.
 */
static Plan *
visit(Rewrite *rw, Plan *plan, Demand demand)
{
	const Demand all = {.is_known = true};
	const Demand unknown = {.is_known = false};
	bool		takes_all = demand.is_known && demand.bounds == 0;
	Demand		outer = unknown;
	Plan	   *result;

	if (plan == NULL)
		return NULL;
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	switch (nodeTag(plan))
	{
			/* these read all their rows before they return one */
		case T_Sort:
		case T_Hash:
			outer = all;
			break;
		case T_Agg:
			if (((Agg *) plan)->aggstrategy == AGG_PLAIN ||
				((Agg *) plan)->aggstrategy == AGG_HASHED)
				outer = all;
			break;
		case T_ModifyTable:
			/* a caller of SPI may want only some of RETURNING's rows */
			outer = ((ModifyTable *) plan)->returningLists && !takes_all &&
				demand.is_known ? demand : all;
			break;

			/* each of their rows takes at least one row of a child */
		case T_LockRows:
			outer = demand;
			outer.passes_limit = false;
			break;
		case T_Result:
			outer = demand;
			break;
		case T_SubqueryScan:
			outer = demand;
			outer.passes_limit &= plan->qual == NIL;
			((SubqueryScan *) plan)->subplan =
				visit(rw, ((SubqueryScan *) plan)->subplan, outer);
			break;
		case T_Append:
			visit_append(rw, (Append *) plan, demand);
			break;
		case T_Limit:
			outer = demand_of_limit((Limit *) plan, demand);
			break;

			/* these read all outer rows */
		case T_NestLoop:
			outer = takes_all || sgt_is_lateral(rw, plan) ? demand : unknown;
			outer.passes_limit = false;
			break;
		case T_HashJoin:
			if (takes_all && (((Join *) plan)->jointype == JOIN_LEFT ||
							  ((Join *) plan)->jointype == JOIN_FULL ||
							  ((Join *) plan)->jointype == JOIN_ANTI))
				outer = all;
			break;

		case T_MergeAppend:
			visit_list(rw, ((MergeAppend *) plan)->mergeplans, unknown);
			break;
		default:
			break;
	}
	plan->lefttree = visit(rw, plan->lefttree, outer);
	plan->righttree = visit(rw, plan->righttree, unknown);

	if (!demand.is_known)
		return plan;
	result = sgt_wrap_target_list(rw, plan, &demand);
	if (result == plan && sgt_is_lateral(rw, plan))
		result = sgt_replace_loop(rw, (NestLoop *) plan, &demand);
	return result;
}

static void
visit_list(Rewrite *rw, List *plans, Demand demand)
{
	ListCell   *lc;

	foreach(lc, plans)
		lfirst(lc) = visit(rw, lfirst(lc), demand);
}

/*
 * Only the first child is sure to be asked for as many rows as its parent,
 * unless that is asked for all rows.
 */
static void
visit_append(Rewrite *rw, Append *append, Demand demand)
{
	ListCell   *lc;

	foreach(lc, append->appendplans)
	{
		if (lc != list_head(append->appendplans) || append->nasyncplans > 0)
		{
			if (demand.bounds & SCAN_BOUND_BY_LIMIT)
				demand.is_known = false;
			else if (demand.bounds & SCAN_BOUND_BY_RUN)
				demand.bounds |= SCAN_BOUND_BY_OTHERS;
		}
		lfirst(lc) = visit(rw, lfirst(lc), demand);
	}
}

/*
 * LIMIT asks for as many rows as it says if it is read to its end.  The node
 * evaluates the numbers a second time.
 */
static Demand
demand_of_limit(const Limit *limit, Demand demand)
{
	Node	   *exprs = (Node *) list_make2(limit->limitCount, limit->limitOffset);

	if (demand.is_known && !(demand.bounds & SCAN_BOUND_BY_LIMIT) &&
		!may_differ(exprs, NULL))
	{
		demand.bounds |= SCAN_BOUND_BY_LIMIT;
		demand.limit = limit;
		demand.passes_limit = limit->limitOption == LIMIT_OPTION_COUNT;
	}
	else
		demand.is_known = false;
	return demand;
}

/*
 * Whether an expression may have another value when it is evaluated again.
 * That users call their functions immutable proves nothing.
 */
static bool
may_differ(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_List:
		case T_Const:
		case T_Param:
		case T_FuncExpr:
		case T_OpExpr:
		case T_RelabelType:
			return check_functions_in_node(node, is_foreign, context) ||
				expression_tree_walker(node, may_differ, context);
		default:
			return true;
	}
}

static bool
is_foreign(Oid function, void *context)
{
	(void) context;
	return function >= FirstNormalObjectId ||
		func_volatile(function) != PROVOLATILE_IMMUTABLE;
}
