/*-------------------------------------------------------------------------
 * probers.c
 *		Who may probe next, while requests are suspended.
 *
 * Whoever comes first probes.  But if that were always the one who comes most
 * often, a job that repeats a request which the API cannot process would take
 * every probe, and everybody's requests would stay suspended.
 *
 * guard.c holds a spinlock while it calls these functions, so they must not
 * raise or wait.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "miscadmin.h"

#include "probers.h"

/* How much later than others a role or a session probes. */
#define DELAY_US			USECS_PER_SEC

/* For how long somebody who was refused is expected to come again. */
#define RECENT_US			(5 * USECS_PER_SEC)

/*
 * For how long a loss counts.  Closing the breaker ends none: the job might
 * open it again before anybody else has had much of the API.
 */
#define LOSS_US				USECS_PER_MINUTE

static bool other_waits(const Waiting *waiting, uint32 who, int64 now);
static bool counts(const Loss *loss, int64 now);
static Loss *find_loss(Probers *probers, Oid role);
static void note_waiting(Waiting *waiting, uint32 who, int64 now);

/*
 * How much later than others a session may probe.
 *
 * If its last probe had no success, that may be due to what it asks for: so
 * other roles go first, and then other sessions, if there are any who ask.  In
 * an outage, a session that is alone probes as often as many.  But after a
 * probe without a result, a role waits in any case, because such probes may
 * take no time, and the API would get too many.
 */
int64
sgt_delay_prober(Probers *probers, const Loss *own, Oid role, int64 now)
{
	const Loss *loss = find_loss(probers, role);
	int64		delay_us = 0;

	if (counts(loss, now) &&
		(!loss->is_failure || other_waits(&probers->role, role, now)))
		delay_us += DELAY_US;
	if (counts(own, now) && other_waits(&probers->session, MyProcPid, now))
		delay_us += DELAY_US;
	return delay_us;
}

/* Whether somebody else was refused a moment ago. */
static bool
other_waits(const Waiting *waiting, uint32 who, int64 now)
{
	return waiting->who != who && now - waiting->refused_us < RECENT_US;
}

static bool
counts(const Loss *loss, int64 now)
{
	return loss && loss->lost_us != 0 && now - loss->lost_us < LOSS_US;
}

/* Notes who was refused, but for those who have a loss: nobody waits for them. */
void
sgt_note_refusal(Probers *probers, const Loss *own, Oid role, int64 now)
{
	if (!counts(find_loss(probers, role), now))
		note_waiting(&probers->role, role, now);
	if (!counts(own, now))
		note_waiting(&probers->session, MyProcPid, now);
}

static void
note_waiting(Waiting *waiting, uint32 who, int64 now)
{
	waiting->who = who;
	waiting->refused_us = now;
}

/* Notes that a session's probe has no success, or none yet. */
void
sgt_note_loss(Probers *probers, Loss *own, Oid role, bool is_failure, int64 now)
{
	Loss	   *loss = find_loss(probers, role);

	if (loss == NULL)
		loss = find_loss(probers, InvalidOid);	/* a free place */
	if (loss == NULL)
		loss = &probers->losers[probers->n_lost++ % SGT_N_LOSERS];
	own->role = role;
	own->is_failure = is_failure;
	own->lost_us = now;
	*loss = *own;
}

/* To be called when a session gets a good answer. */
void
sgt_forget_loss(Probers *probers, Loss *own, Oid role)
{
	Loss	   *loss = find_loss(probers, role);

	if (loss)
		loss->role = InvalidOid;
	own->lost_us = 0;
}

/* A role's loss; NULL if it has none. */
static Loss *
find_loss(Probers *probers, Oid role)
{
	for (int i = 0; i < SGT_N_LOSERS; i++)
	{
		if (probers->losers[i].role == role)
			return &probers->losers[i];
	}
	return NULL;
}
