/*-------------------------------------------------------------------------
 * plan.h
 *		Which plans read ahead.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_PLAN_H
#define SGT_PLAN_H

#include "postgres.h"

#include "fmgr.h"

extern void sgt_install_planner(PGFunction create, PGFunction try_create);

#endif							/* SGT_PLAN_H */
