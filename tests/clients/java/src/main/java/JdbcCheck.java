import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.ZoneId;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Calendar;
import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.TimeZone;
import java.util.TreeMap;
import java.util.TreeSet;

/**
 * Checks a running server with the Arrow Flight SQL JDBC driver that is on the class path.
 *
 * <p>{@code JdbcCheck facts.json [check …]}: the facts contain the server's address and each caller's token.
 */
public final class JdbcCheck {
  private static final String ENDLESS =
      "SELECT count(*) FROM samples a, samples b, samples c, samples d, samples e WHERE a.id || e.id <> b.id || c.id || d.id";

  private final String address;
  private final JsonObject tokens;
  private final int queriesMax;
  /** The URL parameters that make timestamps correct in the JVM's time zone. Empty in the runs without them. */
  private final String zone;

  private JdbcCheck(JsonObject facts) {
    address = facts.get("flight").getAsString();
    tokens = facts.getAsJsonObject("tokens");
    queriesMax = facts.get("tenant_queries_max").getAsInt();
    boolean isSet = facts.has("set_time_zone") && facts.get("set_time_zone").getAsBoolean();
    zone = isSet ? "&timeZone=UTC&x-glasshouse-timezone=" + TimeZone.getDefault().getID() : "";
  }

  public static void main(String[] args) throws Exception {
    JsonObject facts = JsonParser.parseString(Files.readString(Path.of(args[0]))).getAsJsonObject();
    JdbcCheck self = new JdbcCheck(facts);
    Check checks = new Check();
    checks.add("connects_with_a_token", self::connectsWithToken);
    checks.add("connects_with_a_password", self::connectsWithPassword);
    checks.add("connects_with_a_catalog", self::connectsWithCatalog);
    checks.add("bad_callers_are_refused", self::badCallers);
    checks.add("parameters_of_the_url_never_change_the_tenant", self::urlParameters);
    checks.add("tenants_are_disjoint", self::tenants);
    checks.add("values_come_back_as_sent", self::values);
    checks.add("timestamps_are_instants", self::timestamps);
    checks.add("timestamp_parameters_are_instants", self::timestampParameters);
    checks.add("dates_are_the_same_in_every_zone", self::dates);
    checks.add("time_zone_needs_both_properties", self::timeZoneProperties);
    checks.add("order_by_is_kept", self::order);
    checks.add("zero_rows", self::zeroRows);
    checks.add("large_results", self::largeResults);
    checks.add("parameters_of_each_type", self::parameters);
    checks.add("bound_values_equal_literals", self::literals);
    checks.add("prepared_statements_are_reused", self::reuse);
    checks.add("changes_are_refused", self::changes);
    checks.add("batches_are_refused", self::batches);
    checks.add("errors_name_the_problem", self::errors);
    checks.add("cancel_stops_the_query", self::cancel);
    checks.add("every_metadata_getter_returns", self::everyGetter);
    checks.add("metadata_values_are_correct", self::metadata);
    checks.add("tables_columns_and_keys", self::tables);
    checks.run(Arrays.asList(args).subList(1, args.length));
    System.exit(0); // the driver leaves threads running
  }

  private Connection open(String caller, String... more) throws SQLException {
    StringBuilder url = new StringBuilder("jdbc:arrow-flight-sql://" + address + "/?useEncryption=false");
    url.append("&token=").append(tokens.get(caller).getAsString()).append(zone);
    for (String parameter : more) {
      url.append('&').append(parameter);
    }
    return DriverManager.getConnection(url.toString());
  }

  /** Returns the first column of a query's result as strings. */
  private static List<String> column(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
      return column(rows, 1);
    }
  }

  private static List<String> column(ResultSet rows, Object which) throws SQLException {
    List<String> found = new ArrayList<>();
    while (rows.next()) {
      found.add(which instanceof Integer index ? rows.getString(index) : rows.getString((String) which));
    }
    return found;
  }

  private static int count(Connection connection, String condition) throws SQLException {
    return Integer.parseInt(column(connection, "SELECT count(*) FROM samples WHERE " + condition).get(0));
  }

  private Object connectsWithToken() throws SQLException {
    try (Connection connection = open("acme")) {
      Check.equal(column(connection, "SELECT 1"), List.of("1"), "SELECT 1");
      return connection.getMetaData().getDriverVersion();
    }
  }

  private Object connectsWithPassword() throws SQLException {
    Properties properties = new Properties();
    properties.put("user", "someone@example.org");
    properties.put("password", tokens.get("globex").getAsString());
    properties.put("useEncryption", "false");
    if (!zone.isEmpty()) {
      properties.put("timeZone", "UTC");
      properties.put("x-glasshouse-timezone", TimeZone.getDefault().getID());
    }
    try (Connection connection = DriverManager.getConnection("jdbc:arrow-flight-sql://" + address, properties)) {
      Check.equal(count(connection, "small >= 0 OR small IS NULL AND id LIKE 'globex-000%'") > 30, true, "rows");
    }
    return null;
  }

  private Object connectsWithCatalog() throws SQLException {
    Connection connection = open("acme", "catalog=glasshouse");
    Check.holds(count(connection, "true") >= 1000, "rows");
    try {
      connection.close();
    } catch (SQLException error) {
      // Drivers up to version 18.3 close the session, shut down the channel, and then try to close the session again.
      Check.holds(error.getMessage().contains("Channel shutdown invoked"), Check.describe(error));
    }
    Check.refused(() -> open("acme", "catalog=elsewhere").createStatement().executeQuery("SELECT 1"), "a foreign catalog");
    return null;
  }

  private Object badCallers() {
    for (String caller : List.of("expired", "forged", "other_audience", "no_tenant", "empty_tenant")) {
      Exception refusal = Check.refused(() -> {
        try (Connection connection = open(caller)) {
          column(connection, "SELECT count(*) FROM samples");
        }
      }, caller);
      String text = Check.describe(refusal);
      Check.holds(!text.contains("panicked") && !text.contains(".rs:"), text);
    }
    return null;
  }

  private Object urlParameters() throws SQLException {
    try (Connection connection = open("globex", "tenant=acme", "x-tenant=acme", "database=acme", "schema=acme")) {
      Check.equal(count(connection, "id LIKE 'acme-%'"), 0, "foreign rows");
      Check.holds(count(connection, "true") >= 37, "own rows");
    }
    return null;
  }

  private Object tenants() throws SQLException {
    TreeMap<String, List<String>> seen = new TreeMap<>();
    for (String tenant : List.of("acme", "globex", "initech")) {
      try (Connection connection = open(tenant)) {
        List<String> ids = column(connection, "SELECT id FROM samples");
        ids.forEach(id -> Check.holds(id.startsWith(tenant + "-"), tenant + " sees " + id));
        seen.put(tenant, ids);
      }
    }
    Check.holds(seen.get("acme").size() >= 1000 && seen.get("globex").size() >= 37, seen.get("globex"));
    Check.equal(seen.get("initech").size(), 0, "rows of a tenant without rows");
    return null;
  }

  private Object values() throws SQLException {
    String sql = "SELECT id, at, flag, small, big, ratio32, ratio, label, day, dimensions FROM samples WHERE id IN "
        + "('globex-00030', 'globex-00031') ORDER BY id";
    try (Connection connection = open("globex");
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(sql)) {
      ResultSetMetaData described = rows.getMetaData();
      Check.equal(described.getColumnCount(), 10, "columns");
      Check.equal(described.getColumnLabel(2), "at", "label");
      Check.equal(described.getColumnType(1), Types.VARCHAR, "type of id");
      Check.equal(described.getColumnType(5), Types.BIGINT, "type of big");
      Check.holds(rows.next(), "first row");
      Check.equal(rows.getString("id"), "globex-00030", "id");
      Check.equal(rows.getTimestamp("at").toInstant(), Instant.parse("2024-01-01T00:30:00Z"), "at");
      Check.equal(rows.getBoolean("flag"), true, "flag");
      Check.equal(rows.getInt("small"), 30, "small");
      Check.equal(rows.getLong("big"), 300_000_000_000L, "big");
      Check.equal(rows.getFloat("ratio32"), 7.5f, "ratio32");
      Check.equal(rows.getDouble("ratio"), 3.75, "ratio");
      Check.equal(rows.getObject("ratio"), 3.75, "ratio as an object");
      Check.equal(rows.getString("label"), "north", "label");
      Check.equal(rows.getString("day"), "2024-01-31", "day");
      rows.getObject("dimensions");
      Check.holds(rows.next(), "second row: every seventh has no values");
      Check.equal(rows.getInt("small"), 0, "null as a number");
      Check.holds(rows.wasNull(), "wasNull");
      Check.equal(rows.getString("label"), null, "null as a string");
      Check.equal(rows.getObject("big"), null, "null as an object");
      Check.holds(!rows.next(), "no third row");
    }
    return null;
  }

  /** Reads a timestamp in every way that does not depend on the driver's version. */
  private static void reads(Connection connection, String sql, Instant expected) throws SQLException {
    Timestamp wanted = Timestamp.from(expected);
    try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
      Check.holds(rows.next(), sql);
      Check.equal(rows.getTimestamp(1), wanted, sql + ": getTimestamp");
      Check.equal(rows.getTimestamp(rows.getMetaData().getColumnLabel(1)), wanted, sql + ": getTimestamp by name");
      Check.equal(rows.getObject(1, Timestamp.class), wanted, sql + ": getObject as Timestamp");
      Check.equal(rows.getString(1), wanted.toString(), sql + ": getString");
      Check.equal(rows.getDate(1).toString(), wanted.toLocalDateTime().toLocalDate().toString(), sql + ": getDate");
      Check.holds(!rows.next(), "one row");
    }
  }

  private Object timestamps() throws SQLException {
    try (Connection connection = open("globex")) {
      reads(connection, "SELECT at FROM samples WHERE id = 'globex-00030'", Instant.parse("2024-01-01T00:30:00Z"));
      String text = "SELECT TIMESTAMP '%s' AT TIME ZONE 'UTC' AS t";
      for (String time : List.of("2024-07-01T03:30:00Z", "2024-12-31T23:59:59.123456Z", "1969-07-20T20:17:40Z", "2200-02-28T00:00:00Z")) {
        reads(connection, String.format(text, time.replace("T", " ").replace("Z", "")), Instant.parse(time));
      }
      // A day of New York starts at 04:00 or 05:00 in UTC.
      String days = "SELECT date_trunc('day', at AT TIME ZONE 'America/New_York') AS day FROM samples WHERE id = 'globex-00030'";
      if (!zone.isEmpty()) {
        reads(connection, days, Instant.parse("2023-12-31T05:00:00Z"));
      }
      try (Statement statement = connection.createStatement();
          ResultSet rows = statement.executeQuery("SELECT at, CAST(NULL AS TIMESTAMP) AS nothing, CAST(at AS TIMESTAMP) AS naive FROM samples WHERE id = 'globex-00030'")) {
        Check.holds(rows.next(), "a row");
        Check.equal(rows.getTimestamp(2), null, "null");
        Check.holds(rows.wasNull(), "wasNull");
        if (!zone.isEmpty()) {
          Timestamp wanted = Timestamp.from(Instant.parse("2024-01-01T00:30:00Z"));
          Check.equal(rows.getObject(1), wanted, "getObject");
          Check.equal(rows.getTimestamp(1, Calendar.getInstance(TimeZone.getTimeZone("UTC"))), wanted, "getTimestamp with a calendar");
          Check.equal(rows.getMetaData().getColumnType(1), Types.TIMESTAMP, "type");
          // A timestamp without a zone has the same wall-clock time in every zone.
          Check.equal(rows.getTimestamp(3).toLocalDateTime(), LocalDateTime.parse("2024-01-01T00:30:00"), "a time without a zone");
        }
      }
    }
    return ZoneId.systemDefault().getId();
  }

  private Object timestampParameters() throws SQLException {
    try (Connection connection = open("globex");
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT id, at FROM samples WHERE id LIKE 'globex-0%' ORDER BY id LIMIT 37")) {
      int seen = 0;
      while (rows.next()) {
        Timestamp at = rows.getTimestamp(2);
        finds(connection, "at = ?", s -> s.setTimestamp(1, at), rows.getString(1));
        seen++;
      }
      Check.equal(seen, 37, "rows");
      Timestamp at = Timestamp.from(Instant.parse("2024-01-01T00:30:00Z"));
      Calendar utc = Calendar.getInstance(TimeZone.getTimeZone("UTC"));
      finds(connection, "at >= ? AND at <= ?", s -> { s.setTimestamp(1, at, utc); s.setTimestamp(2, at); }, "globex-00030");
      finds(connection, "at > ? AND at < ?", s -> { s.setTimestamp(1, new Timestamp(at.getTime() - 1)); s.setTimestamp(2, new Timestamp(at.getTime() + 1)); }, "globex-00030");
    }
    return null;
  }

  private Object dates() throws SQLException {
    try (Connection connection = open("globex")) {
      finds(connection, "day = ?", s -> s.setDate(1, Date.valueOf("2024-01-31"), Calendar.getInstance()), "globex-00030");
      try (Statement statement = connection.createStatement();
          ResultSet rows = statement.executeQuery("SELECT day FROM samples WHERE id = 'globex-00030'")) {
        Check.holds(rows.next(), "a row");
        Check.equal(rows.getString(1), "2024-01-31", "getString");
        // West of UTC, the driver returns the previous day (docs/sql.md).
        if (TimeZone.getDefault().getRawOffset() >= 0) {
          Check.equal(rows.getDate(1).toString(), "2024-01-31", "getDate");
          Check.equal(rows.getObject(1).toString(), "2024-01-31", "getObject");
        }
      }
    }
    return null;
  }

  private Object timeZoneProperties() {
    String url = "jdbc:arrow-flight-sql://" + address + "/?useEncryption=false&token=" + tokens.get("acme").getAsString();
    for (String[] each : new String[][] {
        {"&x-glasshouse-timezone=Asia/Kolkata", "timeZone=UTC"},
        {"&timeZone=Asia/Kolkata&x-glasshouse-timezone=Asia/Kolkata", "timeZone=UTC"},
        {"&timeZone=UTC&x-glasshouse-timezone=Mars/Phobos", "Mars/Phobos"}}) {
      Exception refusal = Check.refused(() -> {
        try (Connection connection = DriverManager.getConnection(url + each[0])) {
          column(connection, "SELECT 1");
        }
      }, each[0]);
      Check.holds(Check.describe(refusal).contains(each[1]), Check.describe(refusal));
    }
    return null;
  }

  private Object order() throws SQLException {
    try (Connection connection = open("acme")) {
      List<String> found = column(connection, "SELECT id FROM samples ORDER BY id DESC");
      List<String> sorted = new ArrayList<>(found);
      sorted.sort(Collections.reverseOrder());
      Check.equal(found, sorted, "order");
      Check.holds(found.size() >= 1000, found.size());
    }
    return null;
  }

  private Object zeroRows() throws SQLException {
    try (Connection connection = open("initech");
        PreparedStatement statement = connection.prepareStatement("SELECT id, small FROM samples");
        ResultSet rows = statement.executeQuery()) {
      Check.holds(!rows.next(), "no row");
      Check.equal(statement.getMetaData().getColumnCount(), 2, "columns");
    }
    return null;
  }

  private Object largeResults() throws SQLException {
    try (Connection connection = open("acme");
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(
            "SELECT a.id, repeat(b.id, 20) FROM samples a, samples b WHERE a.small < 300 AND b.small < 300 AND b.id LIKE 'acme-0%'")) {
      int seen = 0;
      while (rows.next()) {
        Check.equal(rows.getString(2).length(), 200, "text");
        seen++;
      }
      Check.holds(seen > 50_000, seen);
      return seen;
    }
  }

  /** Sets one parameter. */
  private interface Setter {
    void set(PreparedStatement statement) throws SQLException;
  }

  private static void finds(Connection connection, String condition, Setter setter, String... expected) throws SQLException {
    String sql = "SELECT id FROM samples WHERE " + condition + " AND id LIKE 'globex-0%' ORDER BY id";
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      setter.set(statement);
      try (ResultSet rows = statement.executeQuery()) {
        Check.equal(column(rows, 1), List.of(expected), condition);
      }
    }
  }

  private Object parameters() throws SQLException {
    Timestamp at = Timestamp.from(Instant.parse("2024-01-01T00:30:00Z"));
    try (Connection connection = open("globex")) {
      String hit = "globex-00030";
      finds(connection, "small = ?", s -> s.setInt(1, 30), hit);
      finds(connection, "small = $1", s -> s.setInt(1, 30), hit);
      finds(connection, "big = ?", s -> s.setLong(1, 300_000_000_000L), hit);
      finds(connection, "id = ?", s -> s.setString(1, hit), hit);
      finds(connection, "label = ? AND small = ?", s -> { s.setString(1, "東京"); s.setInt(2, 5); }, "globex-00005");
      finds(connection, "ratio = ?", s -> s.setDouble(1, 3.75), hit);
      finds(connection, "ratio32 = ?", s -> s.setFloat(1, 7.5f), hit);
      finds(connection, "flag = ? AND small < 3", s -> s.setBoolean(1, true), "globex-00000", "globex-00002");
      finds(connection, "day = ?", s -> s.setDate(1, Date.valueOf("2024-01-31"), Calendar.getInstance()), hit);
      finds(connection, "at = ?", s -> s.setTimestamp(1, at), hit);
      finds(connection, "at BETWEEN ? AND ?", s -> { s.setTimestamp(1, at); s.setTimestamp(2, at); }, hit);
      finds(connection, "CAST(ratio AS DECIMAL(10, 2)) = ?", s -> s.setBigDecimal(1, new BigDecimal("3.75")), hit);
      finds(connection, "label = ?", s -> s.setString(1, "' OR 1=1 --"));
      finds(connection, "small = ?", s -> s.setNull(1, Types.INTEGER));
      try (PreparedStatement statement = connection.prepareStatement("SELECT ? || 'b'")) {
        statement.setString(1, "a");
        try (ResultSet rows = statement.executeQuery()) {
          Check.equal(column(rows, 1), List.of("ab"), "a parameter whose type cannot be inferred");
        }
      }
      try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM samples WHERE small = ? AND at > ?")) {
        Check.equal(statement.getParameterMetaData().getParameterCount(), 2, "parameters");
        Check.equal(statement.getParameterMetaData().getParameterType(1), Types.INTEGER, "type of a parameter");
      }
    }
    return null;
  }

  /** A type in SQL, how the driver sets a value of it, and the same value as a literal. */
  private record Bound(String type, Setter setter, String literal) {}

  /** Binding a value has the same result as writing it as a literal. */
  private Object literals() throws SQLException {
    List<Bound> values = List.of(
        new Bound("TINYINT", s -> s.setByte(1, (byte) 5), "5"),
        new Bound("SMALLINT", s -> s.setShort(1, (short) 5), "5"),
        new Bound("INT", s -> s.setInt(1, 5), "5"),
        new Bound("BIGINT", s -> s.setLong(1, 3_000_000_000L), "3000000000"),
        new Bound("REAL", s -> s.setFloat(1, 0.1f), "0.1"),
        new Bound("DOUBLE", s -> s.setDouble(1, 5.5), "5.5"),
        new Bound("DECIMAL(10, 2)", s -> s.setBigDecimal(1, new BigDecimal("5.25")), "5.25"),
        new Bound("VARCHAR", s -> s.setString(1, "a'b"), "'a''b'"),
        new Bound("BOOLEAN", s -> s.setBoolean(1, true), "TRUE"),
        new Bound("DATE", s -> s.setDate(1, Date.valueOf("2024-01-31"), Calendar.getInstance()), "'2024-01-31'"),
        new Bound("INT", s -> s.setNull(1, Types.INTEGER), "NULL"));
    List<String> expressions = List.of(
        "SELECT %s AS x", "SELECT -%s AS x", "SELECT %s / 2 AS x", "SELECT %s + 1 AS x", "SELECT max(%s) AS x",
        "SELECT coalesce(NULL, %s) AS x", "SELECT upper(%s) AS x", "SELECT abs(%s) AS x", "SELECT round(%s) AS x",
        "SELECT CAST(%s AS VARCHAR) AS x", "SELECT CAST(%s AS BIGINT) AS x",
        "SELECT small + %s AS x FROM samples WHERE id = 'globex-00005'",
        "SELECT count(*) AS x FROM samples WHERE small < %s", "SELECT count(*) AS x FROM samples WHERE ratio32 = %s",
        "SELECT count(*) AS x FROM samples WHERE label = %s", "SELECT count(*) AS x FROM samples WHERE day = %s");
    int equal = 0;
    try (Connection connection = open("globex")) {
      for (String expression : expressions) {
        for (Bound value : values) {
          String given = String.format("CAST(? AS %s)", value.type());
          String written = String.format("CAST(%s AS %s)", value.literal(), value.type());
          List<Object> expected = values(connection, String.format(expression, written), s -> {});
          List<Object> found = values(connection, String.format(expression, given), value.setter());
          Check.equal(found, expected, String.format(expression, written));
          equal += found == null ? 0 : 1;
        }
      }
    }
    Check.equal(equal > expressions.size() * values.size() / 2, true, "most statements run");
    return equal + " equal values";
  }

  /** Returns the first column of a result, or null if the server refuses the statement. */
  private static List<Object> values(Connection connection, String sql, Setter setter) throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      setter.set(statement);
      try (ResultSet rows = statement.executeQuery()) {
        List<Object> found = new ArrayList<>();
        while (rows.next()) {
          found.add(rows.getString(1));
        }
        return found;
      }
    } catch (SQLException error) {
      return null;
    }
  }

  private Object reuse() throws SQLException {
    try (Connection connection = open("globex");
        PreparedStatement statement = connection.prepareStatement("SELECT id FROM samples WHERE small = ?")) {
      for (int index : new int[] {5, 6, 7, 5}) {
        statement.setInt(1, index);
        try (ResultSet rows = statement.executeQuery()) {
          Check.equal(column(rows, 1), List.of(String.format("globex-%05d", index)), index);
        }
      }
    }
    return null;
  }

  private Object changes() throws SQLException {
    try (Connection connection = open("acme")) {
      int before = count(connection, "true");
      for (String sql : List.of("INSERT INTO samples VALUES (1)", "DELETE FROM samples", "DROP TABLE samples",
          "CREATE TABLE mine (a INT)", "SET datafusion.execution.batch_size = 1")) {
        Check.refused(() -> {
          try (Statement statement = connection.createStatement()) {
            statement.executeUpdate(sql);
          }
        }, sql);
      }
      Check.equal(count(connection, "true"), before, "rows");
    }
    return null;
  }

  private Object batches() throws SQLException {
    try (Connection connection = open("acme")) {
      Check.refused(() -> {
        try (Statement statement = connection.createStatement()) {
          statement.addBatch("INSERT INTO samples VALUES (1)");
          statement.executeBatch();
        }
      }, "a batch of inserts");
      Check.equal(connection.getMetaData().supportsBatchUpdates(), false, "supportsBatchUpdates");
      Check.holds(count(connection, "true") >= 1000, "the connection is still usable");
    }
    return null;
  }

  private Object errors() throws SQLException {
    try (Connection connection = open("acme")) {
      for (String[] each : new String[][] {
          {"SELECT * FROM nowhere", "nowhere"}, {"SELECT nothing FROM samples", "nothing"}, {"SELECT * FROM hidden", "hidden"}}) {
        String text = Check.describe(Check.refused(() -> column(connection, each[0]), each[0]));
        Check.holds(text.contains(each[1]) && !text.contains("panicked"), text);
      }
      Check.equal(column(connection, "SELECT 1"), List.of("1"), "the connection is still usable");
    }
    return null;
  }

  /**
   * Cancels more queries than a tenant may run at the same time. If a slot were not released, a later query would have to wait.
   */
  private Object cancel() throws Exception {
    try (Connection connection = open("acme")) {
      for (int turn = 0; turn <= queriesMax; turn++) {
        try (Statement statement = connection.createStatement()) {
          List<Object> outcome = Collections.synchronizedList(new ArrayList<>());
          Thread asking = new Thread(() -> {
            try (ResultSet rows = statement.executeQuery(ENDLESS)) {
              outcome.add(rows.next());
            } catch (Throwable error) {
              outcome.add(error);
            }
          });
          asking.start();
          for (int wait = 0; wait < 300 && asking.isAlive(); wait++) {
            asking.join(200);
            if (asking.isAlive()) {
              statement.cancel();
            }
          }
          Check.holds(!asking.isAlive(), "turn " + turn + ": the query was still running after a minute");
          Check.holds(outcome.get(0) instanceof Throwable || outcome.get(0).equals(false), outcome);
        }
      }
      Check.equal(column(connection, "SELECT 1"), List.of("1"), "the connection is still usable");
    }
    return null;
  }

  /** Returns the value for an argument of a metadata method. As a pattern, null matches anything. */
  private static Object argument(Method method, int index) {
    Class<?> type = method.getParameterTypes()[index];
    if (type == int.class) {
      return method.getName().startsWith("supportsResultSet") || method.getName().contains("Visible")
          || method.getName().contains("Detected") ? ResultSet.TYPE_FORWARD_ONLY : 1;
    }
    if (type == boolean.class) {
      return false;
    }
    // The third argument of methods that need a table is its name; for a cross reference, the sixth argument is a table too.
    boolean named = List.of("getPrimaryKeys", "getImportedKeys", "getExportedKeys", "getCrossReference", "getIndexInfo",
        "getBestRowIdentifier", "getVersionColumns", "getColumnPrivileges").contains(method.getName());
    return type == String.class && named && index % 3 == 2 ? "samples" : null;
  }

  private Object everyGetter() throws SQLException {
    TreeMap<String, String> errors = new TreeMap<>();
    int called = 0;
    try (Connection connection = open("acme")) {
      DatabaseMetaData metadata = connection.getMetaData();
      for (Method method : DatabaseMetaData.class.getMethods()) {
        if (method.getDeclaringClass() != DatabaseMetaData.class) {
          continue;
        }
        Object[] arguments = new Object[method.getParameterCount()];
        for (int index = 0; index < arguments.length; index++) {
          arguments[index] = argument(method, index);
        }
        try {
          Object answer = method.invoke(metadata, arguments);
          if (answer instanceof ResultSet rows) {
            rows.getMetaData().getColumnCount();
            while (rows.next()) {
              rows.getString(1);
            }
            rows.close();
          }
          called++;
        } catch (InvocationTargetException error) {
          // The driver does not implement some methods, which throw without calling the server.
          String name = method.getName();
          boolean open =
              name.endsWith("AreVisible") || name.endsWith("AreDetected") || name.equals("supportsResultSetHoldability");
          if (!open || !String.valueOf(error.getCause().getMessage()).startsWith("todo")) {
            errors.put(method.getName(), Check.describe(error.getCause()));
          }
        } catch (IllegalAccessException error) {
          throw new AssertionError(error);
        }
      }
    }
    Check.equal(errors, new TreeMap<>(), "getters that throw");
    Check.holds(called >= 160, called);
    return called + " getters";
  }

  private Object metadata() throws SQLException {
    try (Connection connection = open("acme")) {
      DatabaseMetaData metadata = connection.getMetaData();
      Check.equal(metadata.getDatabaseProductName(), "Glasshouse", "product");
      Check.equal(metadata.isReadOnly(), true, "isReadOnly");
      Check.equal(metadata.getIdentifierQuoteString(), "\"", "quote");
      Check.equal(metadata.getSearchStringEscape(), "\\", "escape");
      Check.equal(metadata.supportsTransactions(), false, "supportsTransactions");
      Check.equal(metadata.getDefaultTransactionIsolation(), Connection.TRANSACTION_NONE, "isolation");
      Check.equal(metadata.supportsGroupBy(), true, "supportsGroupBy");
      Check.equal(metadata.supportsUnionAll(), true, "supportsUnionAll");
      Check.equal(metadata.supportsOuterJoins(), true, "supportsOuterJoins");
      Check.equal(metadata.supportsFullOuterJoins(), true, "supportsFullOuterJoins");
      Check.equal(metadata.supportsCorrelatedSubqueries(), true, "supportsCorrelatedSubqueries");
      Check.equal(metadata.supportsSubqueriesInExists(), true, "supportsSubqueriesInExists");
      Check.equal(metadata.supportsANSI92EntryLevelSQL(), true, "supportsANSI92EntryLevelSQL");
      // Two groups of methods are not checked. supportsConvert with two types always fails, because the driver compares its own
      // objects with the protocol's numbers. The driver does not ask the server about the case of names and the order of nulls.
      Check.equal(metadata.supportsConvert(), true, "supportsConvert");
      Check.equal(metadata.supportsResultSetType(ResultSet.TYPE_FORWARD_ONLY), true, "forward only");
      Check.equal(metadata.getCatalogTerm(), "catalog", "catalog term");
      Check.holds(metadata.getSQLKeywords().contains("SELECT"), "keywords");
      Check.holds(metadata.getNumericFunctions().contains("abs"), metadata.getNumericFunctions());
      Check.holds(metadata.getTimeDateFunctions().contains("date_bin"), metadata.getTimeDateFunctions());
    }
    return null;
  }

  private Object tables() throws SQLException {
    try (Connection connection = open("acme")) {
      DatabaseMetaData metadata = connection.getMetaData();
      try (ResultSet rows = metadata.getCatalogs()) {
        Check.equal(column(rows, "TABLE_CAT"), List.of("glasshouse"), "catalogs");
      }
      try (ResultSet rows = metadata.getSchemas()) {
        Check.equal(new TreeSet<>(column(rows, "TABLE_SCHEM")), new TreeSet<>(List.of("information_schema", "public")), "schemas");
      }
      try (ResultSet rows = metadata.getTables(null, "public", "net%flow", new String[] {"TABLE"})) {
        Check.equal(column(rows, "TABLE_NAME"), List.of("net2flow", "net_flow"), "tables");
      }
      try (ResultSet rows = metadata.getTables(null, null, "hidden", null)) {
        Check.equal(column(rows, "TABLE_NAME"), List.of(), "a table without a policy");
      }
      try (ResultSet rows = metadata.getColumns(null, "public", "samples", "ratio")) {
        Check.holds(rows.next(), "a column");
        Check.equal(rows.getString("TYPE_NAME"), "DOUBLE", "TYPE_NAME");
        Check.equal(rows.getInt("COLUMN_SIZE"), 15, "COLUMN_SIZE");
        Check.equal(rows.getInt("DATA_TYPE"), Types.DOUBLE, "DATA_TYPE");
        Check.equal(rows.getString("IS_NULLABLE"), "YES", "IS_NULLABLE");
        Check.holds(!rows.next(), "one column");
      }
      try (ResultSet rows = metadata.getPrimaryKeys(null, null, "samples")) {
        Check.equal(column(rows, "COLUMN_NAME"), List.of("id"), "primary key");
      }
      try (ResultSet rows = metadata.getImportedKeys(null, null, "samples")) {
        Check.holds(!rows.next(), "no foreign keys");
      }
    }
    return null;
  }
}
