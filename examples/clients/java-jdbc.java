// Guest tokens with JDBC, and what HikariCP makes of errors.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.sql.*;
import java.util.*;

class Clients {
    // clients.md
    static final Set<String> TRY_LATER = Set.of("08001", "08006", "53400", "58000");

    record Token(String token, String refreshToken) {}

    record Result(int id, Token token, String errorCode, String error) {}

    static Token oneToken(Connection connection, UUID... addresses) throws SQLException {
        try (var statement = connection.prepareStatement(
                "SELECT token, refresh_token FROM sw_create_guest_token(?, expires_in => ?::interval)")) {
            statement.setArray(1, connection.createArrayOf("uuid", addresses));
            statement.setString(2, "30 min");
            try (var row = statement.executeQuery()) {
                row.next();
                return new Token(row.getString("token"), row.getString("refresh_token"));
            }
        }
    }

    // One call after the other, unless the role has read_ahead.
    static List<Result> manyTokens(Connection connection, String json) throws SQLException {
        try (var statement = connection.prepareStatement(
                "SELECT r.id, t.* FROM jsonb_to_recordset(?::jsonb) AS r(id int, addresses uuid[]),"
                + " sw_try_create_guest_token(r.addresses) t")) {
            statement.setString(1, json);
            var results = new ArrayList<Result>();
            try (var row = statement.executeQuery()) {
                while (row.next()) {
                    results.add(new Result(row.getInt("id"),
                        new Token(row.getString("token"), row.getString("refresh_token")),
                        row.getString("error_code"), row.getString("error")));
                }
            }
            return results;
        }
    }

    static Token tokenUnlessDown(Connection connection, UUID... addresses) throws SQLException {
        try (var statement = connection.prepareStatement(
                "SELECT * FROM sw_try_create_guest_token(?, expires_in => ?::interval)")) {
            statement.setArray(1, connection.createArrayOf("uuid", addresses));
            statement.setString(2, "30 min");
            try (var row = statement.executeQuery()) {
                row.next();
                String code = row.getString("error_code");
                if (code == null) {
                    return new Token(row.getString("token"), row.getString("refresh_token"));
                }
                if (TRY_LATER.contains(code)) {
                    return null;
                }
                throw new SQLException(row.getString("error"), code);
            }
        }
    }

    static String tokenWithin(Connection connection, int seconds, UUID... addresses) throws SQLException {
        try (var statement = connection.prepareStatement("SELECT token FROM sw_create_guest_token(?)")) {
            statement.setArray(1, connection.createArrayOf("uuid", addresses));
            statement.setQueryTimeout(seconds);     // another thread can call statement.cancel()
            try (var row = statement.executeQuery()) {
                row.next();
                return row.getString("token");
            }
        }
    }
    // end

    static final UUID ADDRESS = UUID.fromString("3fa85f64-5717-4562-b3fc-2c963f66afa6");
    static final String URL = String.format("jdbc:postgresql://%s:%s/%s",
        System.getenv("PGHOST"), System.getenv("PGPORT"), System.getenv("PGDATABASE"));

    interface Call {
        Object make() throws SQLException;
    }

    static void check(boolean good, Object what) {
        if (!good) {
            throw new AssertionError(what);
        }
    }

    static void checkFails(String code, String words, Call call) {
        Object result;
        try {
            result = call.make();
        } catch (SQLException error) {
            check(code.equals(error.getSQLState()) && error.getMessage().contains(words),
                code + " " + words + ": " + error.getSQLState() + " " + error.getMessage());
            return;
        }
        check(false, code + " " + words + ": " + result);
    }

    static Connection connect(String user, String... options) throws SQLException {
        return DriverManager.getConnection(URL + "?user=" + user + "&" + String.join("&", options));
    }

    static Object execute(Connection connection, String sql, Object... values) throws SQLException {
        try (var statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            try (var row = statement.executeQuery()) {
                row.next();
                return row.getObject(1);
            }
        }
    }

    public static void main(String[] arguments) throws SQLException {
        Connection app = connect("app");
        System.out.println("pgjdbc " + app.getMetaData().getDriverVersion());
        check(oneToken(app, ADDRESS, ADDRESS).refreshToken().startsWith("eyJ"), "one token");

        // This API answers only when three requests are there, which takes reading ahead.
        var json = new ArrayList<String>();
        for (int id = 1; id <= 4; id++) {
            json.add(String.format("{\"id\": %d, \"addresses\": [%s]}", id, id == 4 ? "" : "\"" + ADDRESS + "\""));
        }
        List<Result> results = manyTokens(connect("ahead"), json.toString());
        check(results.size() == 4, results);
        for (Result result : results) {
            check(result.id() == 4 ? "22023".equals(result.errorCode())
                : result.token().token().startsWith("eyJ"), result);
        }

        check(tokenUnlessDown(app, ADDRESS) != null, "a token, because all is well");
        Connection down = connect("down");
        down.setAutoCommit(false);
        execute(down, "INSERT INTO visit DEFAULT VALUES RETURNING id");
        check(tokenUnlessDown(down, ADDRESS) == null, "none in an outage");
        down.commit();
        check(execute(down, "SELECT count(*) FROM visit").equals(1L), "what was stored is gone");

        // A caught error has aborted the transaction, which commit() then rolls back.
        execute(down, "INSERT INTO visit DEFAULT VALUES RETURNING id");
        checkFails("08001", "could not connect to SignalWire", () -> oneToken(down, ADDRESS));
        down.commit();
        check(execute(down, "SELECT count(*) FROM visit").equals(1L), "what was stored is there");
        checkFails("22023", "addresses must have 1 to 10 elements", () -> tokenUnlessDown(app));
        Connection slow = connect("slow");
        checkFails("57014", "due to user request", () -> tokenWithin(slow, 1, ADDRESS));
        check(execute(slow, "SELECT 1").equals(1), "the connection is free again");
        Connection watcher = connect("slow");
        try (var statement = slow.prepareStatement("SELECT token FROM sw_create_guest_token(?)")) {
            statement.setArray(1, slow.createArrayOf("uuid", new UUID[] {ADDRESS}));
            new Thread(() -> {
                try {
                    execute(watcher, "SELECT until_called()");
                    statement.cancel();
                } catch (SQLException error) {
                    throw new AssertionError(error);
                }
            }).start();
            checkFails("57014", "due to user request", () -> statement.executeQuery());
        }

        // The client stops waiting, and closes the connection; the server goes on.
        Connection impatient = connect("slow", "socketTimeout=1");
        checkFails("08006", "An I/O error occurred while sending to the backend.",
            () -> oneToken(impatient, ADDRESS));
        check(impatient.isClosed(), "it is open");
        check(execute(slow, "SELECT pg_cancel_backend(until_called())").equals(true), "it has stopped");

        String call = "SELECT * FROM sw_create_guest_token(?)";
        Array addresses = app.createArrayOf("uuid", new UUID[] {ADDRESS});
        checkFails("42883", "function sw_create_guest_token(text[]) does not exist",
            () -> execute(app, call, app.createArrayOf("text", new UUID[] {ADDRESS})));
        checkFails("42883", "function sw_create_guest_token(character varying[]) does not exist",
            () -> execute(app, call, (Object) new String[] {ADDRESS.toString()}));
        checkFails("42883", "function sw_create_guest_token(character varying) does not exist",
            () -> execute(app, call, "{" + ADDRESS + "}"));
        checkFails("42883", "function sw_create_guest_token(uuid[], bigint) does not exist",
            () -> execute(app, "SELECT * FROM sw_create_guest_token(?, ?)", addresses, 1900000000L));
        checkFails("42883", "function sw_create_guest_token(uuid[], expires_in => character varying) does not exist",
            () -> execute(app, "SELECT * FROM sw_create_guest_token(?, expires_in => ?)", addresses, "30 min"));
        checkFails("42883", "function jsonb_to_recordset(character varying) does not exist",
            () -> execute(app, "SELECT * FROM jsonb_to_recordset(?) AS r(id int)", "[]"));
        check(execute(app, "SELECT sw_create_guest_token(?)", addresses).toString().startsWith("(eyJ"),
            "text and no columns");

        // HikariCP closes a connection after an error of class 08, and after no other.
        check(evicts("down", call), "it keeps the connection");
        check(!evicts("down", "SELECT * FROM create_guest_token(?)"), "it closes the connection in spite of the wrapper");
    }

    static boolean evicts(String user, String call) throws SQLException {
        var config = new HikariConfig();
        config.setJdbcUrl(URL);
        config.setUsername(user);
        config.setMaximumPoolSize(1);
        try (var pool = new HikariDataSource(config)) {
            Object[] pids = new Object[2];
            for (int i = 0; i < 2; i++) {
                try (Connection connection = pool.getConnection()) {
                    pids[i] = execute(connection, "SELECT pg_backend_pid()");
                    execute(connection, call, connection.createArrayOf("uuid", new UUID[] {ADDRESS}));
                    check(false, "no failure");
                } catch (SQLException error) {
                    check(error.getMessage().contains("could not connect to SignalWire"), error.getMessage());
                }
            }
            return !pids[0].equals(pids[1]);
        }
    }
}
