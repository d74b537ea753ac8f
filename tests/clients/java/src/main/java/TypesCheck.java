import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Time;
import java.sql.Types;
import java.time.LocalTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TimeZone;
import java.util.UUID;

/**
 * Checks decimals, UUIDs, times of day, JSON and lists with the Arrow Flight SQL JDBC driver that is on the class path. {@code
 * types_query_suite.py} has stored the rows.
 *
 * <p>{@code TypesCheck facts.json [check …]}: the facts contain the server's address and each caller's token.
 */
public final class TypesCheck {
  private static final String REF = "550e8400-e29b-41d4-a716-446655440000";
  private static final String NINES = "9".repeat(38);
  /** The last microsecond of a day. */
  private static final LocalTime LAST = LocalTime.of(23, 59, 59, 999_999_000);

  private final String url;

  private TypesCheck(JsonObject facts) {
    String token = facts.getAsJsonObject("tokens").get("acme").getAsString();
    url = "jdbc:arrow-flight-sql://" + facts.get("flight").getAsString() + "/?useEncryption=false&token=" + token;
  }

  public static void main(String[] args) throws Exception {
    JsonObject facts = JsonParser.parseString(Files.readString(Path.of(args[0]))).getAsJsonObject();
    TypesCheck self = new TypesCheck(facts);
    Check checks = new Check();
    checks.add("decimals_are_exact", self::decimals);
    checks.add("uuids_are_text", self::uuids);
    checks.add("times_have_milliseconds_and_their_text_has_all_digits", self::times);
    checks.add("times_are_correct_in_every_zone_with_the_properties", self::zonedTimes);
    checks.add("json_is_text", self::json);
    checks.add("lists_are_arrays", self::lists);
    checks.add("nulls_are_null", self::nulls);
    checks.add("types_are_described", self::described);
    checks.add("parameters_find_rows", self::parameters);
    checks.run(Arrays.asList(args).subList(1, args.length));
    System.exit(0); // the driver leaves threads running
  }

  /** Reads a row. */
  private interface Reader {
    void read(ResultSet row) throws Exception;
  }

  /** Selects columns of one row of the table. */
  private Object read(String columns, String id, Reader reader) throws Exception {
    try (Connection connection = DriverManager.getConnection(url);
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT " + columns + " FROM kinds WHERE id = '" + id + "'")) {
      Check.holds(rows.next(), "a row");
      reader.read(rows);
      Check.holds(!rows.next(), "one row");
    }
    return null;
  }

  private Object decimals() throws Exception {
    return read("amount, huge, tiny", "jdbc-full", row -> {
      for (Map.Entry<String, String> each :
          Map.of("amount", "-1234567890.12", "huge", NINES, "tiny", "-0." + NINES).entrySet()) {
        BigDecimal expected = new BigDecimal(each.getValue());
        // BigDecimal.equals compares the scale, too.
        Check.equal(row.getBigDecimal(each.getKey()), expected, each.getKey());
        Check.equal(row.getObject(each.getKey()), expected, each.getKey() + " as an object");
        Check.equal(row.getObject(each.getKey(), BigDecimal.class), expected, each.getKey() + " as a BigDecimal");
        Check.equal(row.getString(each.getKey()), each.getValue(), each.getKey() + " as a string");
      }
    });
  }

  private Object uuids() throws Exception {
    return read("ref, X'" + REF.replace("-", "") + "' AS bytes", "jdbc-full", row -> {
      Check.equal(row.getString(1), REF, "getString");
      Check.equal(row.getObject(1), REF, "getObject");
      Check.equal(row.getObject(1, String.class), REF, "getObject as a String");
      Check.equal(UUID.fromString(row.getString(1)), UUID.fromString(REF), "UUID.fromString");
      // The driver has no code for UUIDs: it casts the object that it has, which is a string or a byte array.
      for (int column : new int[] {1, 2}) {
        Exception refusal = Check.refused(() -> row.getObject(column, UUID.class), "getObject as a UUID");
        Check.holds(refusal instanceof ClassCastException, Check.describe(refusal));
      }
    });
  }

  private Object times() throws Exception {
    return read("clock, CAST(clock AS VARCHAR)", "jdbc-full", row -> {
      Check.equal(row.getTime(1).getTime(), LAST.toNanoOfDay() / 1_000_000, "the milliseconds of getTime");
      Check.equal(row.getString(2), LAST.toString(), "the text");
      Check.equal(LocalTime.parse(row.getString(2)), LAST, "the text as a LocalTime");
      // In any other zone, the driver adds the zone's offset (docs/sql.md).
      if (TimeZone.getDefault().getRawOffset() == 0) {
        Check.equal(row.getString(1), "23:59:59.999", "getString");
        Check.equal(row.getTime(1).toString(), "23:59:59.999", "getTime");
        Check.equal(row.getObject(1), row.getTime(1), "getObject");
        Check.equal(row.getTime(1).toLocalTime(), LocalTime.of(23, 59, 59), "toLocalTime");
      }
    });
  }

  /** Reads times of day over a connection that names the zone of the JVM. */
  private Object zonedTimes() throws Exception {
    String properties = "&timeZone=UTC&x-glasshouse-timezone=" + TimeZone.getDefault().getID();
    try (Connection connection = DriverManager.getConnection(url + properties);
        Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(
            "SELECT clock, TIME '00:00:00' FROM kinds WHERE id = 'jdbc-full'")) {
      Check.holds(rows.next(), "a row");
      Check.equal(rows.getTime(1).getTime(), Time.valueOf("23:59:59").getTime() + 999, "the milliseconds of getTime");
      Check.equal(rows.getTime(1).toString(), "23:59:59.999", "getTime");
      Check.equal(rows.getTime(1).toLocalTime(), LocalTime.of(23, 59, 59), "toLocalTime");
      Check.equal(rows.getTime(2).getTime(), Time.valueOf("00:00:00").getTime(), "midnight");
    }
    return null;
  }

  private Object json() throws Exception {
    return read("doc", "jdbc-full", row -> {
      Check.equal(row.getString(1), "{\"a\": [1, null]}", "getString");
      Check.equal(row.getObject(1), row.getString(1), "getObject");
    });
  }

  /** Returns the elements of an array. Texts are objects of the driver, so they are converted to strings. */
  private static List<Object> elements(Array array) throws SQLException {
    List<Object> elements = new ArrayList<>();
    for (Object element : (Object[]) array.getArray()) {
      boolean isKnown = element == null || element instanceof Number;
      elements.add(isKnown ? element : element.toString());
    }
    return elements;
  }

  private Object lists() throws Exception {
    read("names, numbers, prices, refs, clocks", "jdbc-full", row -> {
      Check.equal(elements(row.getArray("names")), Arrays.asList("a", null, "東京"), "names");
      Check.equal(elements(row.getArray("numbers")), Arrays.asList(Long.MAX_VALUE, null), "numbers");
      Check.equal(elements(row.getArray("prices")), Arrays.asList(new BigDecimal("1.500"), null), "prices");
      Check.equal(elements(row.getArray("refs")), List.of(REF), "refs");
      Check.equal(elements(row.getArray("clocks")), List.of(LocalTime.of(1, 2, 3, 456_789_000).toNanoOfDay() / 1_000), "clocks");
      Check.equal(row.getString("names"), "[\"a\",null,\"東京\"]", "names as a string");
      Check.equal(row.getString("prices"), "[1.500,null]", "prices as a string");
      Check.equal(row.getArray("names").getBaseType(), Types.VARCHAR, "base type of names");
      Check.equal(row.getArray("prices").getBaseType(), Types.DECIMAL, "base type of prices");
      List<String> found = new ArrayList<>();
      try (ResultSet each = row.getArray("numbers").getResultSet()) {
        while (each.next()) {
          found.add(each.getString(1));
        }
      }
      Check.equal(found, Arrays.asList(String.valueOf(Long.MAX_VALUE), null), "the elements as a result set");
    });
    return read("names, numbers", "jdbc-empty", row -> {
      Check.equal(elements(row.getArray(1)), List.of(), "an empty list");
      Check.equal(row.getArray(2), null, "no list");
      Check.holds(row.wasNull(), "wasNull");
    });
  }

  private Object nulls() throws Exception {
    return read("amount, ref, clock, doc, names", "jdbc-null", row -> {
      Check.equal(row.getBigDecimal(1), null, "getBigDecimal");
      Check.holds(row.wasNull(), "wasNull");
      Check.equal(row.getTime(3), null, "getTime");
      Check.equal(row.getArray(5), null, "getArray");
      for (int column = 1; column <= 5; column++) {
        Check.equal(row.getObject(column), null, "getObject " + column);
        Check.equal(row.getString(column), null, "getString " + column);
        Check.holds(row.wasNull(), "wasNull " + column);
      }
    });
  }

  private Object described() throws Exception {
    read("amount, ref, clock, doc, names", "jdbc-full", row -> {
      ResultSetMetaData metadata = row.getMetaData();
      List<String> names = List.of("DECIMAL", "VARCHAR", "TIME", "VARCHAR", "ARRAY");
      List<Integer> types = List.of(Types.DECIMAL, Types.VARCHAR, Types.TIME, Types.VARCHAR, Types.ARRAY);
      for (int column = 1; column <= 5; column++) {
        Check.equal(metadata.getColumnTypeName(column), names.get(column - 1), "type name " + column);
        Check.equal(metadata.getColumnType(column), types.get(column - 1), "type " + column);
      }
    });
    try (Connection connection = DriverManager.getConnection(url);
        ResultSet rows = connection.getMetaData().getColumns(null, "public", "kinds", "%")) {
      int seen = 0;
      while (rows.next()) {
        switch (rows.getString("COLUMN_NAME")) {
          case "amount" -> {
            Check.equal(rows.getInt("COLUMN_SIZE"), 12, "precision");
            Check.equal(rows.getInt("DECIMAL_DIGITS"), 2, "scale");
            Check.equal(rows.getInt("DATA_TYPE"), Types.DECIMAL, "type of amount");
          }
          case "tiny" -> {
            Check.equal(rows.getInt("COLUMN_SIZE"), 38, "precision");
            Check.equal(rows.getInt("DECIMAL_DIGITS"), 38, "scale");
          }
          case "clock" -> Check.equal(rows.getInt("DATA_TYPE"), Types.TIME, "type of clock");
          case "names" -> Check.equal(rows.getInt("DATA_TYPE"), Types.ARRAY, "type of names");
          case "ref" -> Check.equal(rows.getString("TYPE_NAME"), "UUID", "type name of ref");
          case "doc" -> Check.equal(rows.getString("TYPE_NAME"), "JSON", "type name of doc");
          default -> seen--;
        }
        seen++;
      }
      Check.equal(seen, 6, "columns");
    }
    return null;
  }

  /** Sets one parameter. */
  private interface Setter {
    void set(PreparedStatement statement) throws SQLException;
  }

  private static void finds(Connection connection, String condition, Setter setter, String... expected) throws SQLException {
    String sql = "SELECT id FROM kinds WHERE id LIKE 'jdbc-%' AND " + condition;
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      setter.set(statement);
      List<String> found = new ArrayList<>();
      try (ResultSet rows = statement.executeQuery()) {
        while (rows.next()) {
          found.add(rows.getString(1));
        }
      }
      Check.equal(found, List.of(expected), condition);
    }
  }

  private Object parameters() throws SQLException {
    String full = "jdbc-full";
    try (Connection connection = DriverManager.getConnection(url)) {
      finds(connection, "amount = ?", s -> s.setBigDecimal(1, new BigDecimal("-1234567890.12")), full);
      finds(connection, "amount = ?", s -> s.setBigDecimal(1, new BigDecimal("-1234567890.13")));
      finds(connection, "huge = ?", s -> s.setBigDecimal(1, new BigDecimal(NINES)), full);
      finds(connection, "tiny = ?", s -> s.setBigDecimal(1, new BigDecimal("-0." + NINES)), full);
      finds(connection, "amount < ?", s -> s.setBigDecimal(1, new BigDecimal("-1234567890.11")), full);
      finds(connection, "ref = ?", s -> s.setString(1, REF), full);
      finds(connection, "ref = ?", s -> s.setString(1, REF.toUpperCase()), full);
      finds(connection, "ref = ?", s -> s.setString(1, REF.replace('5', '6')));
      // The driver binds milliseconds. A text has all digits.
      finds(connection, "clock = CAST(? AS VARCHAR)", s -> s.setString(1, LAST.toString()), full);
      finds(connection, "clock > CAST(? AS VARCHAR)", s -> s.setString(1, "23:59:59.999998"), full);
      finds(connection, "clock > CAST(? AS VARCHAR)", s -> s.setString(1, LAST.toString()));
      finds(connection, "clock > ?", s -> s.setTime(1, Time.valueOf("23:59:59")), full);
      finds(connection, "clock < ?", s -> s.setTime(1, Time.valueOf("23:59:59")));
      Check.refused(() -> finds(connection, "clock = ?", s -> s.setString(1, LAST.toString())), "a text for a time");
      finds(connection, "array_has(names, ?)", s -> s.setString(1, "東京"), full);
    }
    return null;
  }
}
