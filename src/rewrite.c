/*-------------------------------------------------------------------------
 * rewrite.c
 *		Puts the node that reads ahead in place of row-by-row calls.
 *
 * - Calls in a target list become columns of the node.  What they and the
 *   rest of the list need becomes the child's target list.  A sub-select from
 *   nothing but the function counts as a call.
 * - A nested loop with the function is replaced by the node.
 *
 * 1. If anything is not known for sure, the plan stays as it is.
 * 2. A call is moved only if each row makes it, and if nothing that is read
 *    ahead is volatile: that would be computed before its turn.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/tlist.h"
#include "utils/lsyscache.h"

#include "rewrite.h"
#include "rows.h"
#include "scan.h"

/*
 * A list stays as it is if taking it apart would take too long: if it has more
 * calls than this, or if its nodes would be looked at more often.
 */
#define MAX_CALLS	64
#define MAX_LOOKS	500000

/* The node keeps the child's rows as tuples. */
#define MAX_COLUMNS	MaxTupleAttributeNumber

/* A call in a target list */
typedef struct ListCall
{
	FuncExpr   *func;			/* its arguments are like the list's
								 * expressions */
	List	   *fields;			/* of its result, if they are selected one by
								 * one */
	FunctionScan *scan;			/* the sub-select, if it is one */
	List	   *params;			/* that get its columns, in UPDATE */
	bool		is_used;		/* each row uses one of them */
	List	   *sites;			/* the list's nodes that stand for it */
	AttrNumber	number;			/* of its column in the scan tuple */
} ListCall;

/* A target list that is being rewritten */
typedef struct TargetList
{
	Rewrite    *rw;
	List	   *calls;			/* ListCalls */
	List	   *columns;		/* for the child */
	int			n_looks;		/* at nodes */
	bool		is_too_large;	/* too many looks, or columns for a tuple */
} TargetList;

/* A nested loop that is being rewritten */
typedef struct Lateral
{
	NestLoop   *loop;
	FunctionScan *scan;
	bool		for_arguments;	/* which refer to the child; all else refers
								 * to the scan tuple */
	bool		has_failed;
} Lateral;

static bool has_target_list(const Plan *plan);
static bool find_multiexprs(TargetList *list, List *targetlist);
static bool find_calls(Node *node, void *context);
static bool is_transparent(Node *node);
static bool is_volatile(Oid function, void *context);
static ListCall *add_call(TargetList *list, FuncExpr *func, int field);
static ListCall *add_subselect(TargetList *list, const SubPlan *subplan);
static Node *replace_params(Node *node, void *context);
static ListCall *find_site(const TargetList *list, const Node *node);
static ListCall *find_param(const TargetList *list, const Node *node,
							int *number);
static bool mentions_site(Node *node, void *context);
static Node *move_up(Node *node, void *context);
static Node *get_call_var(const ListCall *call);
static Node *get_field(Node *composite, const Var *var);
static Node *get_column(TargetList *list, Node *node, int varno, int offset);
static void set_scan_call(const Rewrite *rw, ScanCall *call, FuncExpr *func,
						  Index rti);
static FunctionScan *get_function_scan(const Rewrite *rw, const Plan *plan);
static Node *move_lateral(Node *node, void *context);

/*
 * Target lists
 */

/*
 * Puts a node above a plan whose target list has calls, if that can be done.
 */
Plan	   *
sgt_wrap_target_list(Rewrite *rw, Plan *plan, const Demand *demand)
{
	TargetList	state = {.rw = rw};
	TargetList *list = &state;
	List	   *targetlist = plan->targetlist;
	List	   *result = NIL;
	ScanCall   *calls;
	CustomScan *cscan;
	ListCell   *lc;
	bool		is_used = true;

	if (!has_target_list(plan) || find_multiexprs(list, targetlist) || find_calls((Node *) targetlist, list))
		return plan;
	foreach(lc, list->calls)
		is_used &= ((ListCall *) lfirst(lc))->is_used;
	if (list->calls == NIL || !is_used)
		return plan;

	/* the calls' arguments are the first columns */
	calls = palloc0(list_length(list->calls) * sizeof(ScanCall));
	foreach(lc, list->calls)
	{
		FuncExpr   *func = ((ListCall *) lfirst(lc))->func;
		ListCell   *arg;

		func = (FuncExpr *) copyObject(func);
		foreach(arg, func->args)
			lfirst(arg) = get_column(list, lfirst(arg), OUTER_VAR, 0);
		set_scan_call(rw, &calls[foreach_current_index(lc)], func, 0);
	}
	foreach(lc, targetlist)
	{
		TargetEntry *tle = flatCopyTargetEntry(lfirst_node(TargetEntry, lc));

		tle->expr = (Expr *) move_up((Node *) tle->expr, list);
		result = lappend(result, tle);
	}
	if (list->is_too_large)
		return plan;

	plan->targetlist = list->columns;
	if (!sgt_is_pure(rw, plan))
	{
		plan->targetlist = targetlist;
		return plan;
	}
	cscan = sgt_make_scan(plan, plan, calls, list_length(list->calls),
						  demand->passes_limit ?
						  demand->bounds | SCAN_PASSES_LIMIT : demand->bounds,
						  demand->limit);
	cscan->scan.plan.plan_node_id = rw->next_plan_id++;
	cscan->scan.plan.targetlist = result;
	return (Plan *) cscan;
}

/*
 * Whether a plan computes its target list for each row of a child or a table.
 */
static bool
has_target_list(const Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_Result:
			return plan->lefttree != NULL;
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
		case T_SubqueryScan:
		case T_FunctionScan:
		case T_TableFuncScan:
		case T_ValuesScan:
		case T_CteScan:
		case T_NamedTuplestoreScan:
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
		case T_Agg:
		case T_Gather:
		case T_GatherMerge:
			return true;
		case T_WindowAgg:
			/* the conditions that end it early refer to its own list */
			return plan->qual == NIL && ((WindowAgg *) plan)->runCondition == NIL;
		default:
			return false;
	}
}

/*
 * Finds the sub-selects of UPDATE ... SET (a, b) = (SELECT ...): they stand
 * at the end of the list, after what takes their columns.  Returns true if
 * one is something other than a call.
 */
static bool
find_multiexprs(TargetList *list, List *targetlist)
{
	ListCell   *lc;

	foreach(lc, targetlist)
	{
		const SubPlan *subplan = (SubPlan *) lfirst_node(TargetEntry, lc)->expr;
		ListCall   *call;

		if (!IsA(subplan, SubPlan) || subplan->subLinkType != MULTIEXPR_SUBLINK)
			continue;
		call = add_subselect(list, subplan);
		if (call == NULL)
			return true;
		call->params = subplan->setParam;
		call->is_used = false;
	}
	return false;
}

/*
 * Finds all calls.  Returns true if one is not made for each row, or needs
 * something volatile, so that the list must stay as it is.
 */
static bool
find_calls(Node *node, void *context)
{
	TargetList *list = context;
	ListCall   *call;
	int			number;

	if (node == NULL || find_site(list, node))
		return false;
	if ((call = find_param(list, node, &number)) != NULL)
	{
		call->is_used = true;
		return false;
	}
	if (IsA(node, FieldSelect) &&
		sgt_find_function(list->rw, (Node *) ((FieldSelect *) node)->arg) >= 0)
		return add_call(list, (FuncExpr *) ((FieldSelect *) node)->arg,
						((FieldSelect *) node)->fieldnum) == NULL;
	if (sgt_find_function(list->rw, node) >= 0)
		return add_call(list, (FuncExpr *) node, 0) == NULL;
	if (IsA(node, SubPlan) &&
		((SubPlan *) node)->subLinkType == EXPR_SUBLINK &&
		add_subselect(list, (SubPlan *) node))
		return false;
	if (is_transparent(node))
		return expression_tree_walker(node, find_calls, list);
	return !sgt_is_pure_expr(list->rw, node) || mentions_site(node, list);
}

/*
 * Whether an expression always evaluates all of its parts.
 */
static bool
is_transparent(Node *node)
{
	switch (nodeTag(node))
	{
		case T_FuncExpr:
			if (((FuncExpr *) node)->funcretset)
				return false;
			break;
		case T_List:
		case T_TargetEntry:
		case T_FieldSelect:
		case T_OpExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_CoerceToDomain:
		case T_ConvertRowtypeExpr:
		case T_CollateExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_NullTest:
			break;
		default:
			return false;
	}
	return !check_functions_in_node(node, is_volatile, NULL);
}

static bool
is_volatile(Oid function, void *context)
{
	(void) context;
	return func_volatile(function) == PROVOLATILE_VOLATILE;
}

/*
 * Adds a call, unless it is a copy of a known one: the parser makes a copy
 * for each column of (f(x)).*, all at the same place in the query.  "field"
 * is the one that is selected, 0 if none is.  Returns NULL if the call cannot
 * be moved.
 */
static ListCall *
add_call(TargetList *list, FuncExpr *func, int field)
{
	ListCall   *call;
	ListCell   *lc;

	foreach(lc, field > 0 && func->location >= 0 ? list->calls : NIL)
	{
		call = lfirst(lc);
		if (call->func->location == func->location && equal(call->func, func) &&
			call->fields && !list_member_int(call->fields, field))
		{
			call->fields = lappend_int(call->fields, field);
			call->sites = lappend(call->sites, func);
			return call;
		}
	}

	if (list_length(func->args) != SGT_N_ARGS || !sgt_is_pure_expr(list->rw, func->args) ||
		list_length(list->calls) >= MAX_CALLS)
		return NULL;
	call = palloc0(sizeof(ListCall));
	call->func = copyObject(func);
	call->fields = field > 0 ? list_make1_int(field) : NIL;
	call->is_used = true;
	call->sites = list_make1(func);
	list->calls = lappend(list->calls, call);
	call->number = list_length(list->calls);
	return call;
}

/*
 * Adds a sub-select from nothing but the function, whose arguments come from
 * the row; NULL if it is something else.
 */
static ListCall *
add_subselect(TargetList *list, const SubPlan *subplan)
{
	FunctionScan *scan =
	get_function_scan(list->rw, list_nth(list->rw->stmt->subplans, subplan->plan_id - 1));
	ListCall   *call;
	const FuncExpr *func;
	ListCell   *lc;

	if (scan == NULL || scan->scan.plan.qual || subplan->parParam == NIL)
		return NULL;
	foreach(lc, scan->scan.plan.targetlist)
	{
		Var		   *var = (Var *) lfirst_node(TargetEntry, lc)->expr;

		if (!IsA(var, Var) || var->varattno < 0)
			return NULL;
	}

	func = (FuncExpr *) linitial_node(RangeTblFunction, scan->functions)->funcexpr;
	if (contain_subplans((Node *) func->args))
		return NULL;
	call = add_call(list, (FuncExpr *) replace_params((Node *) func, (void *) subplan), 0);
	if (call)
	{
		call->scan = scan;
		call->sites = lappend(call->sites, (void *) subplan);
	}
	return call;
}

/*
 * Puts in what a sub-select's parameters stand for, to be evaluated where the
 * sub-select was.
 */
static Node *
replace_params(Node *node, void *context)
{
	const SubPlan *subplan = context;
	ListCell   *number;
	ListCell   *value;

	if (node == NULL)
		return NULL;
	if (!IsA(node, Param) || ((Param *) node)->paramkind != PARAM_EXEC)
		return expression_tree_mutator(node, replace_params, context);
	forboth(number, subplan->parParam, value, subplan->args)
	{
		if (lfirst_int(number) == ((Param *) node)->paramid)
			return copyObject(lfirst(value));
	}
	return copyObject(node);
}

static ListCall *
find_site(const TargetList *list, const Node *node)
{
	ListCell   *lc;

	foreach(lc, list->calls)
	{
		ListCall   *call = lfirst(lc);

		if (list_member_ptr(call->sites, node))
			return call;
	}
	return NULL;
}

/*
 * The call whose column a parameter takes, and that column's number, from 0;
 * NULL if there is none.
 */
static ListCall *
find_param(const TargetList *list, const Node *node, int *number)
{
	ListCell   *lc;
	ListCell   *param;

	if (!IsA(node, Param) || ((Param *) node)->paramkind != PARAM_EXEC)
		return NULL;
	foreach(lc, list->calls)
	{
		ListCall   *call = lfirst(lc);

		foreach(param, call->params)
		{
			*number = foreach_current_index(param);
			if (lfirst_int(param) == ((Param *) node)->paramid)
				return call;
		}
	}
	return NULL;
}

static bool
mentions_site(Node *node, void *context)
{
	TargetList *list = context;
	int			number;

	if (node == NULL)
		return false;
	CHECK_FOR_INTERRUPTS();
	list->is_too_large |= ++list->n_looks > MAX_LOOKS;
	if (list->is_too_large || find_site(list, node) ||
		find_param(list, node, &number))
		return true;
	return expression_tree_walker(node, mentions_site, list);
}

/*
 * Turns an expression of the target list into one of the node: calls become
 * columns of its scan tuple, and so do the largest parts without calls.
 */
static Node *
move_up(Node *node, void *context)
{
	TargetList *list = context;
	ListCall   *call;
	int			number = 0;

	if (node == NULL)
		return NULL;
	call = find_site(list, node);
	if (call && IsA(node, FuncExpr))
		return get_call_var(call);
	if (call && ((SubPlan *) node)->subLinkType == MULTIEXPR_SUBLINK)
		return (Node *) makeNullConst(RECORDOID, -1, InvalidOid);
	if (call == NULL)
		call = find_param(list, node, &number);
	if (call)
		return get_field(get_call_var(call),
						 (Var *) list_nth_node(TargetEntry,
											   call->scan->scan.plan.targetlist,
											   number)->expr);
	if (!mentions_site(node, list))
		return get_column(list, node, INDEX_VAR, list_length(list->calls));
	return expression_tree_mutator(node, move_up, list);
}

/*
 * The column that holds what a call returns.
 */
static Node *
get_call_var(const ListCall *call)
{
	return (Node *) makeVar(INDEX_VAR, call->number,
							call->func->funcresulttype, -1, InvalidOid, 0);
}

/*
 * The attribute of the composite that a column of the function's range-table
 * entry stands for.
 */
static Node *
get_field(Node *composite, const Var *var)
{
	FieldSelect *field;

	if (var->varattno == 0)
		return composite;
	field = makeNode(FieldSelect);
	field->arg = (Expr *) composite;
	field->fieldnum = var->varattno;
	field->resulttype = var->vartype;
	field->resulttypmod = var->vartypmod;
	field->resultcollid = var->varcollid;
	return (Node *) field;
}

/*
 * Makes the child compute an expression, and returns a reference to that
 * column.  Columns start after "offset".
 */
static Node *
get_column(TargetList *list, Node *node, int varno, int offset)
{
	TargetEntry *tle = NULL;
	Var		   *var;

	if (IsA(node, Const) ||
		(IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXTERN))
		return node;
	if (list_length(list->columns) >= MAX_COLUMNS)
	{
		list->is_too_large = true;
		return node;
	}
	/* others may be long, and take longer to compare than to compute */
	if (IsA(node, Var))
		tle = tlist_member((Expr *) node, list->columns);
	if (tle == NULL)
	{
		tle = makeTargetEntry((Expr *) node, list_length(list->columns) + 1, NULL,
							  false);
		list->columns = lappend(list->columns, tle);
	}
	var = makeVarFromTargetEntry(varno, tle);
	var->varattno += offset;
	return (Node *) var;
}

static void
set_scan_call(const Rewrite *rw, ScanCall *call, FuncExpr *func, Index rti)
{
	call->func = func;
	call->rti = rti;
	call->is_try = rw->are_try[sgt_find_function(rw, (Node *) func)];
}

/*
 * Nested loops
 */

/*
 * The plan as a scan of one call, or NULL if it is something else.
 */
static FunctionScan *
get_function_scan(const Rewrite *rw, const Plan *plan)
{
	FunctionScan *scan = (FunctionScan *) plan;
	FuncExpr   *func;

	if (plan == NULL || !IsA(plan, FunctionScan) || plan->initPlan ||
		scan->funcordinality || list_length(scan->functions) != 1)
		return NULL;
	func = (FuncExpr *) linitial_node(RangeTblFunction, scan->functions)->funcexpr;
	if (sgt_find_function(rw, (Node *) func) < 0 ||
		list_length(func->args) != SGT_N_ARGS || !sgt_is_pure_expr(rw, func->args))
		return NULL;
	return scan;
}

/*
 * Whether a plan calls the function for each row of its outer plan.
 */
bool
sgt_is_lateral(const Rewrite *rw, const Plan *plan)
{
	const NestLoop *loop = (const NestLoop *) plan;
	FunctionScan *scan;
	ListCell   *lc;

	if (!IsA(plan, NestLoop) ||
		(scan = get_function_scan(rw, plan->righttree)) == NULL)
		return false;
	if (loop->join.jointype != JOIN_INNER &&
		(loop->join.jointype != JOIN_LEFT || loop->join.joinqual ||
		 scan->scan.plan.qual))
		return false;

	/* without a parameter it is called once */
	foreach(lc, loop->nestParams)
	{
		if (bms_is_member(lfirst_node(NestLoopParam, lc)->paramno,
						  linitial_node(RangeTblFunction, scan->functions)->funcparams))
			return true;
	}
	return false;
}

/*
 * Puts a node in the place of such a plan, if that can be done.  Its target
 * list is evaluated as rows are handed on, so it may be volatile.  Quals keep
 * the order in which the loop evaluates them.
 */
Plan	   *
sgt_replace_loop(Rewrite *rw, NestLoop *loop, const Demand *demand)
{
	Plan	   *plan = &loop->join.plan;
	FunctionScan *scan = (FunctionScan *) plan->righttree;
	List	   *quals = list_concat(list_concat_copy(scan->scan.plan.qual,
													 loop->join.joinqual), plan->qual);
	Lateral		lateral = {.loop = loop,.scan = scan};
	Node	   *targetlist;
	FuncExpr   *func;
	ScanCall	call;
	CustomScan *cscan;

	if (list_length(plan->lefttree->targetlist) > MAX_COLUMNS ||
		!sgt_is_pure(rw, plan->lefttree) || !sgt_is_pure_expr(rw, quals) ||
		sgt_mentions_call((Node *) plan->targetlist, rw))
		return plan;

	targetlist = move_lateral((Node *) plan->targetlist, &lateral);
	quals = (List *) move_lateral((Node *) quals, &lateral);
	lateral.for_arguments = true;
	func = (FuncExpr *) linitial_node(RangeTblFunction, scan->functions)->funcexpr;
	func = (FuncExpr *) move_lateral((Node *) func, &lateral);
	if (lateral.has_failed)
		return plan;

	set_scan_call(rw, &call, func, scan->scan.scanrelid);
	cscan = sgt_make_scan(plan, plan->lefttree, &call, 1, demand->bounds,
						  demand->limit);
	cscan->scan.plan.plan_node_id = rw->next_plan_id++;
	cscan->scan.plan.targetlist = (List *) targetlist;
	cscan->scan.plan.qual = quals;
	cscan->scan.plan.initPlan = plan->initPlan;
	return (Plan *) cscan;
}

/*
 * Turns an expression of the nested loop, or of its function, into one of the
 * node.
 */
static Node *
move_lateral(Node *node, void *context)
{
	Lateral    *lateral = context;
	int			varno = lateral->for_arguments ? OUTER_VAR : INDEX_VAR;
	int			offset = lateral->for_arguments ? 0 : 1;
	ListCell   *lc;

	if (node == NULL)
		return NULL;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		foreach(lc, lateral->loop->nestParams)
		{
			NestLoopParam *param = lfirst_node(NestLoopParam, lc);

			if (param->paramno == ((Param *) node)->paramid)
				return move_lateral((Node *) param->paramval, lateral);
		}
	}
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		const FuncExpr *func = (FuncExpr *)
		linitial_node(RangeTblFunction, lateral->scan->functions)->funcexpr;

		if (var->varno == OUTER_VAR)
		{
			var = copyObject(var);
			var->varno = varno;
			var->varattno += offset;
			return (Node *) var;
		}
		if (var->varno == INNER_VAR)
			return move_lateral((Node *) list_nth_node(TargetEntry,
													   lateral->scan->scan.plan.targetlist,
													   var->varattno - 1)->expr,
								lateral);
		if (var->varno == (int) lateral->scan->scan.scanrelid &&
			(var->varattno > 0 ||
			 (var->varattno == 0 && var->vartype == func->funcresulttype)))
			return get_field((Node *) makeVar(INDEX_VAR, 1, func->funcresulttype, -1,
											  InvalidOid, 0), var);
		lateral->has_failed = true;
		return node;
	}
	return expression_tree_mutator(node, move_lateral, lateral);
}
