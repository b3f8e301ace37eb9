/*-------------------------------------------------------------------------
 * rewrite.h
 *		Puts the node that reads ahead in place of row-by-row calls.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_REWRITE_H
#define SGT_REWRITE_H

#include "postgres.h"

#include "purity.h"

/* How many rows a node's parent is sure to ask it for */
typedef struct Demand
{
	bool		is_known;		/* else: one by one */
	int			bounds;			/* for scan.h */
	const Limit *limit;			/* of SCAN_BOUND_BY_LIMIT */
	bool		passes_limit;	/* the executor would tell the plan how many
								 * rows LIMIT reads */
} Demand;

/* Both return what takes the plan's place, which may be the plan itself. */
extern Plan *sgt_wrap_target_list(Rewrite *rw, Plan *plan,
								  const Demand *demand);
extern Plan *sgt_replace_loop(Rewrite *rw, NestLoop *loop,
							  const Demand *demand);

extern bool sgt_is_lateral(const Rewrite *rw, const Plan *plan);

#endif							/* SGT_REWRITE_H */
