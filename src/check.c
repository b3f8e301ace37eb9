/*-------------------------------------------------------------------------
 * check.c
 *		sw_guest_token_check(): says which step on the way to a token fails.
 *
 * One row per step, in order.  Steps that depend on one that failed are
 * absent: a host that cannot be reached shows no certificate.  Nothing is
 * raised except what interrupts the call, and no token is issued.
 *
 * Only one request crosses the network, over a connection of its own; the
 * steps are told apart by how far it got.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "answer.h"
#include "batch.h"
#include "guard.h"
#include "messages.h"
#include "settings.h"
#include "tokens.h"

/* A certificate that expires sooner is worth a hint. */
#define SOON_DAYS		14

/*
 * expire_at is compared with this server's clock, and enforced by the API's: a
 * difference of less than a minute goes unnoticed.
 */
#define MAX_SKEW_S		60

/* The columns of sw_guest_token_check() */
enum
{
	COLUMN_STEP,
	COLUMN_OK,
	COLUMN_TOOK,
	COLUMN_DETAIL,
	COLUMN_HINT,
	N_COLUMNS
};

PG_FUNCTION_INFO_V1(sw_guest_token_check);

static void put_preload(ReturnSetInfo *result);
static void check_network(ReturnSetInfo *result, Target *target,
						  bool has_credentials);
static void put_certificate(ReturnSetInfo *result, Target *target,
							const AttemptExam *exam);
static void put_clock(ReturnSetInfo *result, const AttemptExam *exam);
static void put_guard(ReturnSetInfo *result, const Target *target);
static void put_error(ReturnSetInfo *result, const char *step, int64 took_us,
					  const CallError *error, const char *hint);
static void put_step(ReturnSetInfo *result, const char *step, bool ok,
					 int64 took_us, const char *detail, const char *hint);

/*
 * sw_guest_token_check()
 *		returns table (step text, ok boolean, took interval, detail text,
 *					   hint text)
 */
Datum
sw_guest_token_check(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Target	   *target;
	CallError	error = {0};
	TimestampTz start;
	bool		has_credentials;

	/* it swallows errors, and PostgreSQL lets interrupts through after one */
	sgt_require_interrupts();
	InitMaterializedSRF(fcinfo, 0);
	put_preload(result);

	start = GetCurrentTimestamp();
	target = sgt_check_target(SETTINGS_TARGET, &error);
	if (target == NULL)
	{
		put_error(result, "settings", GetCurrentTimestamp() - start, &error,
				  _("Set the parameter in \"postgresql.conf\"."));
		put_guard(result, NULL);
		return (Datum) 0;
	}
	put_step(result, "settings", true, GetCurrentTimestamp() - start,
			 psprintf(target->proxy ?
					  _("Requests go to %s through a proxy.") :
					  _("Requests go to %s."), target->base_url),
			 NULL);

	start = GetCurrentTimestamp();
	target = sgt_check_target(SETTINGS_CREDENTIALS, &error);
	has_credentials = target != NULL;
	if (has_credentials)
		put_step(result, "credentials", true, GetCurrentTimestamp() - start,
				 _("There is an API token."), NULL);
	else
	{
		put_error(result, "credentials", GetCurrentTimestamp() - start, &error,
				  _("Write the API token into a file that only the server's user can read, and name it in \"sw_guest_token.api_token_file\"."));

		/* the steps before authorization can still be checked */
		target = sgt_check_target(SETTINGS_TARGET, &error);
	}

	if (target)
		check_network(result, target, has_credentials);
	put_guard(result, target);
	return (Datum) 0;
}

/*
 * Nothing depends on this step: without preloading, tokens are still issued,
 * but every role can read the settings until its session loads the library.
 */
static void
put_preload(ReturnSetInfo *result)
{
	bool		ok = sgt_is_preloaded();

	put_step(result, "preload", ok, 0, ok ?
			 _("The server has preloaded the library.") :
			 _("The server has not preloaded the library: in a session that has not loaded it yet, every role can read \"sw_guest_token.api_token\"."),
			 ok ? NULL : _("Add \"sw_guest_token\" to \"shared_preload_libraries\", and restart the server."));
}

static void
check_network(ReturnSetInfo *result, Target *target,
			  bool has_credentials)
{
	AttemptExam exam = {0};
	CallError	error = {0};
	TimestampTz start = GetCurrentTimestamp();
	bool		authorized = sgt_examine_api(target, &exam, &error);
	int64		took_us = GetCurrentTimestamp() - start;

	if (exam.resolve_us == 0)
	{
		put_error(result, "resolve", took_us, &error,
				  target->proxy ?
				  _("Check the names of the proxy and of the API's host, and the server's DNS.") :
				  _("Check \"sw_guest_token.space_name\" or \"sw_guest_token.base_url\", and the server's DNS; is a proxy needed?"));
		return;
	}
	put_step(result, "resolve", true, exam.resolve_us,
			 _("The host name was resolved."), NULL);

	took_us -= exam.resolve_us;
	if (exam.connect_us == 0)
	{
		put_error(result, "connect", took_us, &error,
				  target->proxy ?
				  _("Can the server reach the proxy in \"sw_guest_token.proxy\" or in the environment, and does something listen there?") :
				  _("Can the server reach the host, and does something listen there?  A firewall may require \"sw_guest_token.proxy\"."));
		return;
	}
	put_step(result, "connect", true, exam.connect_us,
			 _("The host accepts connections."), NULL);

	took_us -= exam.connect_us;
	if (exam.tls_us == 0 && exam.answer_us == 0)
	{
		put_error(result, "tls", took_us, &error,
				  _("Does the port speak TLS, and does the proxy let it through?"));
		return;
	}
	put_certificate(result, target, &exam);

	took_us -= exam.tls_us;
	if (exam.answer_us > 0)
		put_clock(result, &exam);

	if (!has_credentials)
		return;
	if (authorized)
		put_step(result, "authorize", true, took_us,
				 _("The API accepts the credentials."), NULL);
	else
		put_error(result, "authorize", took_us, &error,
				  _("The credentials could not be checked; see the detail."));
}

static void
put_certificate(ReturnSetInfo *result, Target *target,
				const AttemptExam *exam)
{
	int64		days = (exam->expires - exam->local_time) / SECS_PER_DAY;

	if (!target->is_https)
		put_step(result, "tls", true, 0,
				 _("Plain HTTP to a loopback host, without TLS."), NULL);
	else if (exam->expires < 0)
		put_step(result, "tls", true, exam->tls_us,
				 _("The certificate is trusted."), NULL);
	else
		put_step(result, "tls", true, exam->tls_us,
				 psprintf(dngettext(TEXTDOMAIN,
									"The certificate is trusted, was issued by %s, and expires in %lld day.",
									"The certificate is trusted, was issued by %s, and expires in %lld days.",
									(unsigned long) days),
						  sgt_show_text(&target->secrets, exam->issuer,
										strlen(exam->issuer)),
						  (long long) days),
				 days <= SOON_DAYS ? _("The owner of the certificate should renew it soon.") : NULL);
}

static void
put_clock(ReturnSetInfo *result, const AttemptExam *exam)
{
	int64		skew_s = exam->server_time - exam->local_time;
	bool		ok = skew_s >= -MAX_SKEW_S && skew_s <= MAX_SKEW_S;

	if (exam->server_time < 0)
		put_step(result, "clock", true, exam->answer_us,
				 _("The response has no date."), NULL);
	else
		put_step(result, "clock", ok, exam->answer_us,
				 skew_s == 0 ?
				 _("The API's clock agrees with this server's.") :
				 psprintf(skew_s > 0 ?
						  _("The API's clock is %lld s ahead of this server's.") :
						  _("The API's clock is %lld s behind this server's."),
						  (long long) (skew_s > 0 ? skew_s : -skew_s)),
				 ok ? NULL : _("Synchronize this server's clock, for example by NTP, because expire_at is a point in time."));
}

/*
 * The state after all other steps: an answer to their request ends a
 * suspension.
 */
static void
put_guard(ReturnSetInfo *result, const Target *target)
{
	Guarded    *guarded = target ? sgt_find_guarded(target) : NULL;
	GuardSnapshot snapshot = {0};
	BreakerState *state = &snapshot.state;

	if (guarded)
		sgt_take_snapshot(guarded, sgt_get_limits(), &snapshot);
	if (!sgt_is_preloaded())
		put_step(result, "guard", true, 0,
				 _("Nothing is guarded: the server has not preloaded the library."),
				 NULL);
	else if (target == NULL)
		put_step(result, "guard", true, 0,
				 _("No target is guarded: the settings do not name one."), NULL);
	else if (guarded == NULL)
		put_step(result, "guard", true, 0,
				 psprintf(_("This target is not guarded: %d other targets have taken all places."),
						  SGT_MAX_GUARDED), NULL);
	else if (state->is_open)
		put_step(result, "guard", false, 0,
				 psprintf(_("Requests are suspended.  %s  The next probe is due in %.1f s."),
						  sgt_describe_cause(state),
						  Max(state->probe_in_us, 0) / 1000000.0),
				 _("The suspension ends by itself as soon as a probe is answered."));
	else if (snapshot.is_crowded)
		put_step(result, "guard", false, 0,
				 psprintf(_("SignalWire is slow, and \"sw_guest_token.max_sessions\" (%d) sessions wait for it."),
						  sgt_get_limits()->max_sessions),
				 _("Further sessions are turned away until one of these has its answer, or gives up."));
	else
		put_step(result, "guard", true, 0,
				 _("Requests are not suspended."), NULL);
}

/*
 * A step that failed: the error's own hint is better than the step's.
 */
static void
put_error(ReturnSetInfo *result, const char *step, int64 took_us,
		  const CallError *error, const char *hint)
{
	char	   *detail = error->message;

	if (error->detail)
		detail = psprintf("%s: %s", error->message, error->detail);
	put_step(result, step, false, took_us, detail,
			 error->hint ? error->hint : hint);
}

static void
put_step(ReturnSetInfo *result, const char *step, bool ok, int64 took_us,
		 const char *detail, const char *hint)
{
	Interval   *took = palloc0(sizeof(Interval));
	Datum		values[N_COLUMNS] = {0};
	bool		nulls[N_COLUMNS] = {false};

	took->time = Max(took_us, 0);
	values[COLUMN_STEP] = CStringGetTextDatum(step);
	values[COLUMN_OK] = BoolGetDatum(ok);
	values[COLUMN_TOOK] = IntervalPGetDatum(took);
	values[COLUMN_DETAIL] = CStringGetTextDatum(detail);
	nulls[COLUMN_HINT] = hint == NULL;
	if (hint)
		values[COLUMN_HINT] = CStringGetTextDatum(hint);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}
