// Guest tokens with database/sql and lib/pq.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// clients.md
import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/lib/pq"
)

type guest struct {
	ID        int      `json:"id"`
	Addresses []string `json:"addresses"`
}

type result struct {
	id                                   int
	token, refreshToken, code, errorText sql.NullString
}

// A deadline of ctx, or its cancellation, cancels the call and closes the connection.
func oneToken(ctx context.Context, db *sql.DB, addresses []string) (token, refreshToken string, err error) {
	err = db.QueryRowContext(ctx,
		"SELECT token, refresh_token FROM sw_create_guest_token($1, expires_in => $2)",
		pq.Array(addresses), "30 min").Scan(&token, &refreshToken)
	return
}

// One call after the other, unless the role has read_ahead.
func manyTokens(ctx context.Context, db *sql.DB, guests []guest) (results []result, err error) {
	list, err := json.Marshal(guests)
	if err != nil {
		return nil, err
	}
	rows, err := db.QueryContext(ctx,
		`SELECT r.id, t.* FROM jsonb_to_recordset($1) AS r(id int, addresses uuid[]),
		   sw_try_create_guest_token(r.addresses) t`, list)
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
	QueryRowContext(ctx context.Context, text string, values ...interface{}) *sql.Row
}

// tokenUnlessDown returns no token and no error in an outage.
func tokenUnlessDown(ctx context.Context, db queryer, addresses []string) (token, refreshToken *string, err error) {
	var code, message *string
	err = db.QueryRowContext(ctx,
		"SELECT * FROM sw_try_create_guest_token($1, expires_in => $2)",
		pq.Array(addresses), "30 min").Scan(&token, &refreshToken, &code, &message)
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

func connect(user string) *sql.DB {
	db, err := sql.Open("postgres", "user="+user)
	check(err == nil, err)
	db.SetMaxOpenConns(1)
	return db
}

func query(db *sql.DB, text string, values ...interface{}) (value string, err error) {
	err = db.QueryRow(text, values...).Scan(&value)
	return
}

func checkFails(code, words string, err error) {
	var failure *pq.Error
	check(err != nil, "it succeeded:", code, words)
	check(strings.Contains(err.Error(), words), err)
	check(code == "" || errors.As(err, &failure) && string(failure.Code) == code, err)
}

func main() {
	fmt.Println("lib/pq")
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
		check(r.id == 4 && r.code.String == "22004" || strings.HasPrefix(r.token.String, "eyJ"), r)
	}

	down := connect("down")
	before, _ := query(down, "SELECT pg_backend_pid()")
	_, _, err = oneToken(ctx, down, []string{address})
	checkFails("08001", "could not connect to SignalWire", err)
	after, _ := query(down, "SELECT pg_backend_pid()")
	check(before != "" && before == after, "the pool has closed the connection")
	tx, err := down.Begin()
	check(err == nil, err)
	_, err = tx.Exec("INSERT INTO visit DEFAULT VALUES")
	check(err == nil, err)
	none, _, err := tokenUnlessDown(ctx, tx, []string{address})
	check(err == nil && none == nil, "an outage:", err)
	check(tx.Commit() == nil, "the transaction cannot be committed")
	stored, err := query(down, "SELECT count(*) FROM visit")
	check(err == nil && stored == "1", "what was stored is gone:", err)

	// A caught error has aborted the transaction; this driver says so as it commits.
	tx, err = down.Begin()
	check(err == nil, err)
	_, err = tx.Exec("SELECT FROM sw_create_guest_token($1)", pq.Array([]string{address}))
	checkFails("08001", "could not connect to SignalWire", err)
	checkFails("", "Could not complete operation in a failed transaction", tx.Commit())
	_, _, err = tokenUnlessDown(ctx, app, []string{})
	checkFails("", "22023: addresses must have 1 to 10 elements", err)
	_, _, err = oneToken(ctx, app, []string{})
	checkFails("22023", "addresses must have 1 to 10 elements", err)

	// A cancelled context cancels the call, and closes the connection.
	slow, watcher := connect("slow"), connect("slow")
	before, _ = query(slow, "SELECT pg_backend_pid()")
	limited, cancel := context.WithCancel(ctx)
	go func() {
		_, err := watcher.Exec("SELECT until_called()")
		check(err == nil, err)
		cancel()
	}()
	_, _, err = oneToken(limited, slow, []string{address})
	checkFails("57014", "due to user request", err)
	after, _ = query(slow, "SELECT pg_backend_pid()")
	check(after != "" && before != after, "the pool keeps the connection")

	call := "SELECT token FROM sw_create_guest_token($1, $2)"
	_, err = query(app, call, []string{address}, nil)
	checkFails("", "unsupported type []string, a slice of string", err)
	_, err = query(app, call, pq.Array([]string{address}), time.Now().UnixMilli())
	checkFails("22003", "is out of range for type integer", err)
	_, err = query(app, call, address, nil)
	checkFails("22P02", "malformed array literal: \""+address+"\"", err)
	_, err = query(app, "SELECT token FROM sw_create_guest_token($1, expires_in => $2)",
		pq.Array([]string{address}), 30*time.Minute)
	checkFails("22023", "expires_in must not end after the year 9999", err)
	text, err := query(app, "SELECT sw_create_guest_token($1)", pq.Array([]string{address}))
	check(err == nil && strings.HasPrefix(text, "(eyJ"), "text and no columns:", err)
}
