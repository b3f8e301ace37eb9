/*-------------------------------------------------------------------------
 * probers.h
 *		Who may probe next, while requests are suspended.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_PROBERS_H
#define SGT_PROBERS_H

#include "postgres.h"

/* How many roles whose probes had no success are known at the same time. */
#define SGT_N_LOSERS		8

/* What the last probe of a role or a session has left, if it had no success. */
typedef struct Loss
{
	Oid			role;
	bool		is_failure;		/* the API failed; else it gave no result */
	int64		lost_us;
} Loss;

/* Who was refused last, of those without a loss. */
typedef struct Waiting
{
	uint32		who;			/* a role's OID, or a process's ID */
	int64		refused_us;
} Waiting;

/* Who has probed and who waits, for one target; all zero when new. */
typedef struct Probers
{
	Loss		losers[SGT_N_LOSERS];	/* the roles' */
	uint32		n_lost;			/* how many took another's place */
	Waiting		role;
	Waiting		session;
} Probers;

/* "own" is the session's loss.  These raise nothing. */
extern int64 sgt_delay_prober(Probers *probers, const Loss *own, Oid role,
							  int64 now);
extern void sgt_note_refusal(Probers *probers, const Loss *own, Oid role,
							 int64 now);
extern void sgt_note_loss(Probers *probers, Loss *own, Oid role,
						  bool is_failure, int64 now);
extern void sgt_forget_loss(Probers *probers, Loss *own, Oid role);

#endif							/* SGT_PROBERS_H */
