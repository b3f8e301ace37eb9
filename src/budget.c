/*-------------------------------------------------------------------------
 * budget.c
 *		How many tokens a role may ask for: a token bucket for each role.
 *
 * It knows neither what a token is nor where the buckets are; their owner
 * makes sure that nobody else uses them at the same time.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"

#include "budget.h"

/*
 * Takes a token out of a role's bucket; false if there is none.
 *
 * The search for a role begins at the entry that its OID names, and ends at
 * one that was never used.  A full bucket needs no entry.  A role that finds
 * no entry is refused, because it would otherwise have no limit.
 */
bool
sgt_spend(Budget *budgets, Oid role, int tokens_per_minute, int64 now)
{
	Budget	   *budget = NULL;
	int64		cost_us;
	int64		full_us;

	if (tokens_per_minute == 0)
		return true;
	for (int i = 0; i < SGT_N_BUDGETS; i++)
	{
		Budget	   *entry = &budgets[(role + i) % SGT_N_BUDGETS];

		if (entry->role == role)
		{
			budget = entry;
			break;
		}
		if (budget == NULL && entry->full_us <= now)
			budget = entry;
		if (!OidIsValid(entry->role))
			break;
	}
	if (budget == NULL)
		return false;

	cost_us = USECS_PER_MINUTE / tokens_per_minute;
	full_us = cost_us + (budget->role == role ? Max(budget->full_us, now) : now);
	if (full_us > now + USECS_PER_MINUTE)
		return false;
	budget->role = role;
	budget->full_us = full_us;
	return true;
}
