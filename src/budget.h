/*-------------------------------------------------------------------------
 * budget.h
 *		How many tokens a role may ask for: a token bucket for each role.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_BUDGET_H
#define SGT_BUDGET_H

#include "postgres.h"

#define SGT_N_BUDGETS		1024

/* What a role has asked for: a bucket of one minute's capacity. */
typedef struct Budget
{
	Oid			role;
	int64		full_us;		/* when it is full again */
} Budget;

/* Raises nothing. */
extern bool sgt_spend(Budget *budgets, Oid role, int tokens_per_minute,
					  int64 now);

#endif							/* SGT_BUDGET_H */
