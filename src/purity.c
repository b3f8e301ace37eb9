/*-------------------------------------------------------------------------
 * purity.c
 *		Which parts of a finished plan may be computed before their turn.
 *
 * Only kinds of plan nodes that are known here can be pure.  Nothing is
 * changed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

#include "purity.h"
#include "scan.h"

static bool is_pure_subplan(const Rewrite *rw, int plan_id);
static bool has_impure_subplan(Node *node, void *rewrite);

/*
 * The plans right below one.
 */
List	   *
sgt_get_children(Plan *plan)
{
	List	   *children = NIL;

	if (plan->lefttree)
		children = lappend(children, plan->lefttree);
	if (plan->righttree)
		children = lappend(children, plan->righttree);
	switch (nodeTag(plan))
	{
		case T_Append:
			return list_concat(children, ((Append *) plan)->appendplans);
		case T_MergeAppend:
			return list_concat(children, ((MergeAppend *) plan)->mergeplans);
		case T_BitmapAnd:
			return list_concat(children, ((BitmapAnd *) plan)->bitmapplans);
		case T_BitmapOr:
			return list_concat(children, ((BitmapOr *) plan)->bitmapplans);
		case T_SubqueryScan:
			return lappend(children, ((SubqueryScan *) plan)->subplan);
		case T_CustomScan:
			return list_concat(children, ((CustomScan *) plan)->custom_plans);
		default:
			return children;
	}
}

/*
 * Whether an expression contains a call.
 */
bool
sgt_mentions_call(Node *node, void *rewrite)
{
	const Rewrite *rw = rewrite;

	if (node == NULL)
		return false;
	return sgt_find_function(rw, node) >= 0 ||
		expression_tree_walker(node, sgt_mentions_call, rewrite);
}

/*
 * Which of the functions an expression calls; -1 if none.
 */
int
sgt_find_function(const Rewrite *rw, const Node *node)
{
	if (!IsA(node, FuncExpr))
		return -1;
	for (int i = 0; i < rw->mentioned.n; i++)
	{
		if (rw->mentioned.functions[i] == ((const FuncExpr *) node)->funcid)
			return i;
	}
	return -1;
}

/*
 * Whether rows of a plan may be read before their turn: the plan changes
 * nothing, and nothing in it is volatile except the calls of other nodes.
 */
bool
sgt_is_pure(const Rewrite *rw, Plan *plan)
{
	ListCell   *lc;
	bool		is_pure = true;

	if (plan == NULL)
		return true;
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	switch (nodeTag(plan))
	{
		case T_SeqScan:
		case T_BitmapHeapScan:
		case T_BitmapAnd:
		case T_BitmapOr:
		case T_SubqueryScan:
		case T_NamedTuplestoreScan:
		case T_ProjectSet:
		case T_Append:
		case T_MergeAppend:
		case T_Material:
		case T_Sort:
		case T_IncrementalSort:
		case T_Group:
		case T_Agg:
		case T_Unique:
		case T_SetOp:
		case T_Gather:
		case T_GatherMerge:
		case T_LockRows:
			break;
		case T_Result:
			is_pure = sgt_is_pure_expr(rw, ((Result *) plan)->resconstantqual);
			break;
		case T_IndexScan:
			is_pure = sgt_is_pure_expr(rw, ((IndexScan *) plan)->indexqual) &&
				sgt_is_pure_expr(rw, ((IndexScan *) plan)->indexorderby);
			break;
		case T_IndexOnlyScan:
			is_pure = sgt_is_pure_expr(rw, ((IndexOnlyScan *) plan)->indexqual) &&
				sgt_is_pure_expr(rw, ((IndexOnlyScan *) plan)->indexorderby);
			break;
		case T_BitmapIndexScan:
			is_pure = sgt_is_pure_expr(rw, ((BitmapIndexScan *) plan)->indexqual);
			break;
		case T_SampleScan:
			is_pure = sgt_is_pure_expr(rw, ((SampleScan *) plan)->tablesample);
			break;
		case T_TidScan:
			is_pure = sgt_is_pure_expr(rw, ((TidScan *) plan)->tidquals);
			break;
		case T_TidRangeScan:
			is_pure = sgt_is_pure_expr(rw, ((TidRangeScan *) plan)->tidrangequals);
			break;
		case T_FunctionScan:
			is_pure = sgt_is_pure_expr(rw, ((FunctionScan *) plan)->functions);
			break;
		case T_ValuesScan:
			is_pure = sgt_is_pure_expr(rw, ((ValuesScan *) plan)->values_lists);
			break;
		case T_TableFuncScan:
			is_pure = sgt_is_pure_expr(rw, ((TableFuncScan *) plan)->tablefunc);
			break;
		case T_CteScan:
			is_pure = is_pure_subplan(rw, ((CteScan *) plan)->ctePlanId);
			break;

			/* the planner overlooks volatile functions in a sub-select */
		case T_NestLoop:
			is_pure = sgt_is_pure_expr(rw, ((Join *) plan)->joinqual);
			break;
		case T_MergeJoin:
			is_pure = sgt_is_pure_expr(rw, ((Join *) plan)->joinqual) &&
				sgt_is_pure_expr(rw, ((MergeJoin *) plan)->mergeclauses);
			break;
		case T_HashJoin:
			is_pure = sgt_is_pure_expr(rw, ((Join *) plan)->joinqual) &&
				sgt_is_pure_expr(rw, ((HashJoin *) plan)->hashclauses) &&
				sgt_is_pure_expr(rw, ((HashJoin *) plan)->hashkeys);
			break;
		case T_Hash:
			is_pure = sgt_is_pure_expr(rw, ((Hash *) plan)->hashkeys);
			break;
		case T_Memoize:
			is_pure = sgt_is_pure_expr(rw, ((Memoize *) plan)->param_exprs);
			break;
		case T_WindowAgg:
			is_pure = sgt_is_pure_expr(rw, ((WindowAgg *) plan)->startOffset) &&
				sgt_is_pure_expr(rw, ((WindowAgg *) plan)->endOffset);
			break;
		case T_Limit:
			is_pure = sgt_is_pure_expr(rw, ((Limit *) plan)->limitOffset) &&
				sgt_is_pure_expr(rw, ((Limit *) plan)->limitCount);
			break;
		case T_CustomScan:
			is_pure = sgt_is_scan(plan);
			break;
		default:
			return false;
	}
	if (!is_pure || !sgt_is_pure_expr(rw, plan->targetlist) ||
		!sgt_is_pure_expr(rw, plan->qual) || !sgt_is_pure_expr(rw, plan->initPlan))
		return false;
	foreach(lc, sgt_get_children(plan))
	{
		if (!sgt_is_pure(rw, lfirst(lc)))
			return false;
	}
	return true;
}

/*
 * The same for an expression, or a list of them.
 */
bool
sgt_is_pure_expr(const Rewrite *rw, const void *node)
{
	return !contain_volatile_functions((Node *) node) &&
		!has_impure_subplan((Node *) node, (void *) rw);
}

/*
 * The same for a sub-plan; their numbers start at 1.  Each is judged only
 * once: if sub-plans that use another one twice judged it twice, the time
 * would be exponential.
 */
static bool
is_pure_subplan(const Rewrite *rw, int plan_id)
{
	int			i = plan_id - 1;

	if (!rw->are_judged[i])
	{
		rw->are_pure[i] = sgt_is_pure(rw, list_nth(rw->stmt->subplans, i));
		rw->are_judged[i] = true;
	}
	return rw->are_pure[i];
}

static bool
has_impure_subplan(Node *node, void *rewrite)
{
	const Rewrite *rw = rewrite;

	if (node == NULL)
		return false;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		/* an initPlan runs when its parameter is first asked for */
		int			setter = rw->setters[((Param *) node)->paramid];

		return setter > 0 && !is_pure_subplan(rw, setter);
	}
	if (IsA(node, SubPlan) &&
		!is_pure_subplan(rw, ((SubPlan *) node)->plan_id))
		return true;
	return expression_tree_walker(node, has_impure_subplan, rewrite);
}
