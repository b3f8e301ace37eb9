/*-------------------------------------------------------------------------
 * scan.h
 *		The plan node that reads ahead, "Guest Tokens".
 *
 * It has one child.  Its scan tuple is what its calls return, and then the
 * child's columns: calls refer to these as OUTER_VAR, the node's target list
 * and qual to the scan tuple as INDEX_VAR.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_SCAN_H
#define SGT_SCAN_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "nodes/plannodes.h"

/*
 * How many rows the node's parent is sure to ask for: all, unless one of these
 * says less.  With both, LIMIT counts if ExecutorRun() is asked for all rows.
 */
#define SCAN_BOUND_BY_RUN	0x1 /* what ExecutorRun() is asked for */
#define SCAN_BOUND_BY_LIMIT	0x2 /* what LIMIT above it says */
#define SCAN_BOUND_BY_OTHERS	0x4 /* none, unless ExecutorRun() is asked for
									 * all: others have rows before it */
#define SCAN_PASSES_LIMIT	0x8 /* LIMIT's number is told to its child */

/* One call, for sgt_make_scan() */
typedef struct ScanCall
{
	FuncExpr   *func;			/* its arguments refer to the child */
	bool		is_try;			/* a failure is a result */
	Index		rti;			/* of the range table's entry that it is; 0:
								 * none */
} ScanCall;

extern void sgt_register_scan(void);
extern bool sgt_is_scan(const Plan *plan);
extern CustomScan *sgt_make_scan(const Plan *model, Plan *child,
								 ScanCall *calls, int n_calls, int bounds,
								 const Limit *limit);

#endif							/* SGT_SCAN_H */
