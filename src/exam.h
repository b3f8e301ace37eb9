/*-------------------------------------------------------------------------
 * exam.h
 *		How far an attempt got, for the doctor.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_EXAM_H
#define SGT_EXAM_H

#include "postgres.h"

#include "attempt.h"

/* How far a request got, and how long each step took; 0: not reached. */
typedef struct AttemptExam
{
	int64		resolve_us;
	int64		connect_us;
	int64		tls_us;			/* including that to a proxy */
	int64		answer_us;
	int64		local_time;		/* when the headers were there, Unix time */
	int64		server_time;	/* the date in them; -1: none */
	int			status;			/* 0: none came */
	char		issuer[256];	/* of the server's certificate */
	int64		expires;		/* Unix time; -1: not known */
} AttemptExam;

/* Raises nothing. */
extern void sgt_examine_attempt(const Attempt *a, AttemptExam *exam);

#endif							/* SGT_EXAM_H */
