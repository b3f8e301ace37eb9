// Guest tokens with pgx.
package main

import (
	"fmt"
	"os"
	"strings"
)

// clients.md
import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgconn" // of version 5: github.com/jackc/pgx/v5/pgconn
	"github.com/jackc/pgx/v4"
)

type guest struct {
	ID        int      `json:"id"`
	Addresses []string `json:"addresses"`
}

type result struct {
	id                                   int
	token, refreshToken, code, errorText *string
}

// A deadline of ctx, or its cancellation, cancels the call and closes conn.
func oneToken(ctx context.Context, conn *pgx.Conn, addresses []string) (token, refreshToken string, err error) {
	err = conn.QueryRow(ctx,
		"SELECT token, refresh_token FROM sw_create_guest_token($1, expires_in => $2)",
		addresses, 30*time.Minute).Scan(&token, &refreshToken)
	return
}

// One call after the other, unless the role has read_ahead.
func manyTokens(ctx context.Context, conn *pgx.Conn, guests []guest) (results []result, err error) {
	rows, err := conn.Query(ctx,
		`SELECT r.id, t.* FROM jsonb_to_recordset($1) AS r(id int, addresses uuid[]),
		   sw_try_create_guest_token(r.addresses) t`, guests)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r result
		if err := rows.Scan(&r.id, &r.token, &r.refreshToken, &r.code, &r.errorText); err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, rows.Err()
}

// queryer is a connection, a pool or a transaction.
type queryer interface {
	QueryRow(ctx context.Context, sql string, values ...interface{}) pgx.Row
}

// tokenUnlessDown returns no token and no error in an outage.
func tokenUnlessDown(ctx context.Context, db queryer, addresses []string) (token, refreshToken *string, err error) {
	var code, message *string
	err = db.QueryRow(ctx,
		"SELECT * FROM sw_try_create_guest_token($1, expires_in => $2)",
		addresses, 30*time.Minute).Scan(&token, &refreshToken, &code, &message)
	if err == nil && code != nil {
		switch *code {
		case "08001", "08006", "53400", "58000":
		default:
			err = errors.New(*code + ": " + *message)
		}
	}
	return
}

// end

const address = "3fa85f64-5717-4562-b3fc-2c963f66afa6"

var ctx = context.Background()

func check(good bool, what ...interface{}) {
	if !good {
		fmt.Fprintln(os.Stderr, what...)
		os.Exit(1)
	}
}

func connect(user string) *pgx.Conn {
	conn, err := pgx.Connect(ctx, "user="+user)
	check(err == nil, err)
	return conn
}

func query(conn *pgx.Conn, sql string, values ...interface{}) (text *string, err error) {
	err = conn.QueryRow(ctx, sql, values...).Scan(&text)
	return
}

func checkFails(code, words string, err error) {
	var failure *pgconn.PgError
	check(err != nil, "it succeeded:", code, words)
	check(strings.Contains(err.Error(), words), err)
	check(code == "" || errors.As(err, &failure) && failure.Code == code, err)
}

func main() {
	fmt.Println("pgx 4")
	app := connect("app")
	token, _, err := oneToken(ctx, app, []string{address, address})
	check(err == nil && strings.HasPrefix(token, "eyJ"), "one token:", err)

	// This API answers only when three requests are there, which takes reading ahead.
	var guests []guest
	for id := 1; id <= 4; id++ {
		guests = append(guests, guest{id, []string{address}})
	}
	guests[3].Addresses = nil
	results, err := manyTokens(ctx, connect("ahead"), guests)
	check(err == nil && len(results) == 4, "many tokens:", err)
	for _, r := range results {
		check(r.id == 4 && *r.code == "22004" || strings.HasPrefix(*r.token, "eyJ"), r)
	}

	down := connect("down")
	tx, err := down.Begin(ctx)
	check(err == nil, err)
	_, err = tx.Exec(ctx, "INSERT INTO visit DEFAULT VALUES")
	check(err == nil, err)
	none, _, err := tokenUnlessDown(ctx, tx, []string{address})
	check(err == nil && none == nil, "an outage:", err)
	check(tx.Commit(ctx) == nil, "the transaction cannot be committed")
	stored, err := query(down, "SELECT count(*)::text FROM visit")
	check(err == nil && *stored == "1", "what was stored is gone:", err)

	// A caught error has aborted the transaction; this driver says so as it commits.
	tx, err = down.Begin(ctx)
	check(err == nil, err)
	_, _, err = oneToken(ctx, tx.Conn(), []string{address})
	checkFails("08001", "could not connect to SignalWire", err)
	checkFails("", "commit unexpectedly resulted in rollback", tx.Commit(ctx))
	_, _, err = tokenUnlessDown(ctx, app, []string{})
	checkFails("", "22023: addresses must have 1 to 10 elements", err)
	_, _, err = oneToken(ctx, app, []string{})
	checkFails("22023", "addresses must have 1 to 10 elements", err)

	// A cancelled context cancels the call, and closes the connection.
	slow, watcher := connect("slow"), connect("slow")
	limited, cancel := context.WithCancel(ctx)
	go func() {
		_, err := watcher.Exec(ctx, "SELECT until_called()")
		check(err == nil, err)
		cancel()
	}()
	_, _, err = oneToken(limited, slow, []string{address})
	check(errors.Is(err, context.Canceled) && slow.IsClosed(), err)
	_, err = connect("slow").Exec(ctx, "SELECT until_idle()")
	check(err == nil, "the server goes on:", err)

	call := "SELECT token FROM sw_create_guest_token($1, $2)"
	_, err = query(app, call, []string{address}, time.Now().UnixMilli())
	checkFails("", "is greater than maximum value for Int4", err)
	_, err = query(app, call, address, nil)
	checkFails("22P02", "malformed array literal: \""+address+"\"", err)
	text, err := query(app, "SELECT sw_create_guest_token($1)", []string{address})
	check(err == nil && strings.HasPrefix(*text, "(eyJ"), "text and no columns:", err)
}
