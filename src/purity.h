/*-------------------------------------------------------------------------
 * purity.h
 *		Which parts of a finished plan may be computed before their turn.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_PURITY_H
#define SGT_PURITY_H

#include "postgres.h"

#include "nodes/plannodes.h"

/* A database has four such functions, unless somebody has made more of them. */
#define MAX_FUNCTIONS	8

/* Which functions the query that is being planned mentions */
typedef struct Mentioned
{
	int			n;
	Oid			functions[MAX_FUNCTIONS];
} Mentioned;

/* A statement whose plan is rewritten */
typedef struct Rewrite
{
	PlannedStmt *stmt;
	Mentioned	mentioned;		/* of these, those that really are ours */
	bool		are_try[MAX_FUNCTIONS];
	int			next_plan_id;
	int		   *setters;		/* by parameter: the sub-plan that sets it,
								 * once; 0: none */
	bool	   *are_judged;		/* the statement's sub-plans */
	bool	   *are_pure;		/* of those that are judged */
} Rewrite;

extern List *sgt_get_children(Plan *plan);
extern int	sgt_find_function(const Rewrite *rw, const Node *node);
extern bool sgt_mentions_call(Node *node, void *rewrite);
extern bool sgt_is_pure(const Rewrite *rw, Plan *plan);
extern bool sgt_is_pure_expr(const Rewrite *rw, const void *node);

#endif							/* SGT_PURITY_H */
