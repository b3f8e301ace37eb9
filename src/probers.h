/*-------------------------------------------------------------------------
 * probers.h
 *		Who may probe next, while requests are suspended.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_PROBERS_H
#define SGT_PROBERS_H

#include "postgres.h"

/*
 * How many roles whose probes had no success are known at the same time: about
 * as many as there are probes in the time for which they count.
 */
#define SGT_N_LOSERS		16

/* Who goes next: roles' OIDs, or processes' IDs; 0: nobody. */
typedef struct Waiting
{
	uint32		unbeaten;		/* who came last, of those without a loss */
	uint32		loser;			/* who has the oldest loss, of those who were
								 * refused since */
	int64		lost_us;		/* when that was */
} Waiting;

/* A role whose last probe had no success. */
typedef struct Loser
{
	Oid			role;
	int64		lost_us;		/* when it probed; 0: a free place */
	Waiting		session;		/* one of the role's */
} Loser;

/* Who has probed and who waits, for one target; all zero when new. */
typedef struct Probers
{
	Loser		losers[SGT_N_LOSERS];
	Waiting		role;
} Probers;

/*
 * "own_lost_us" is when the session's last probe went, if it had no success;
 * otherwise 0.  These raise nothing.
 */
extern int64 sgt_delay_prober(Probers *probers, int64 own_lost_us, Oid role,
							  int64 now);
extern void sgt_note_refusal(Probers *probers, int64 own_lost_us, Oid role,
							 int64 now);
extern void sgt_note_probe(Probers *probers, Oid role, int64 now);
extern void sgt_note_success(Probers *probers, Oid role);

#endif							/* SGT_PROBERS_H */
