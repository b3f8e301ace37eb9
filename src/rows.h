/*-------------------------------------------------------------------------
 * rows.h
 *		SQL values as arguments of a call, and results of calls as rows.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_ROWS_H
#define SGT_ROWS_H

#include "postgres.h"

#include "access/tupdesc.h"

#include "error.h"
#include "tokens.h"

/* The parameters of sw_create_guest_token() and sw_try_create_guest_token() */
#define SGT_N_ARGS	5

/*
 * The columns of a result, all text.  sw_guest_token has the first two,
 * sw_guest_token_result all of them, and a row of a batch also its ordinality
 * before them.
 */
enum
{
	SGT_TOKEN,
	SGT_REFRESH_TOKEN,
	SGT_ERROR_CODE,
	SGT_ERROR,
	SGT_N_COLUMNS
};
#define SGT_N_PAIR_COLUMNS	SGT_ERROR_CODE

extern void sgt_get_args(const NullableDatum *values, GuestTokenArgs *args);
extern void sgt_check_result_type(Oid type, TupleDesc desc, int n_columns);
extern void sgt_refuse_type(Oid type) pg_attribute_noreturn();
extern void sgt_fill_columns(Datum *values, bool *nulls, const TokenPair *pair,
							 const CallError *error);
extern Datum sgt_make_row(TupleDesc desc, const TokenPair *pair,
						  const CallError *error);

#endif							/* SGT_ROWS_H */
