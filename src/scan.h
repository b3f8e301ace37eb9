/*-------------------------------------------------------------------------
 * scan.h
 *		The plan node that reads ahead, "Guest Tokens".
 *
 * It has one child.  Its scan tuple has what its calls return, and then the
 * child's columns.  Calls refer to the child's columns as OUTER_VAR; the
 * node's target list and qual refer to the scan tuple as INDEX_VAR.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_SCAN_H
#define SGT_SCAN_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "nodes/plannodes.h"

/*
 * How many rows the node's parent is sure to ask for: all, unless one of
 * these says less.  With the first two, LIMIT counts if ExecutorRun() is
 * asked for all rows.
 */
#define SCAN_BOUND_BY_RUN	0x1 /* what ExecutorRun() is asked for */
#define SCAN_BOUND_BY_LIMIT	0x2 /* what LIMIT above it says */
#define SCAN_BOUND_BY_OTHERS	0x4 /* none, unless ExecutorRun() is asked for
									 * all: other nodes' rows come first */
#define SCAN_PASSES_LIMIT	0x8 /* the child is told LIMIT's number */

/* One call, for sgt_make_scan() */
typedef struct ScanCall
{
	FuncExpr   *func;			/* its arguments refer to the child */
	bool		is_try;			/* a failure is a result */
	Index		rti;			/* its entry in the range table; 0: none */
} ScanCall;

extern void sgt_register_scan(void);
extern bool sgt_is_scan(const Plan *plan);
extern CustomScan *sgt_make_scan(const Plan *model, Plan *child,
								 ScanCall *calls, int n_calls, int bounds,
								 const Limit *limit);

#endif							/* SGT_SCAN_H */
