import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * Runs the statements of sqllogictest files with the Arrow Flight SQL JDBC driver that is on the class path.
 *
 * <p>{@code StatementFiles facts.json [check …]}: the facts contain the server's address, the callers' tokens, and the folder with
 * the files {@code bi_*.slt}. There is one check for each file, except for the file with refused statements.
 */
public final class StatementFiles {
  /** The number of rows of these statements depends on the time of the test. */
  private static final Pattern CLOCK = Pattern.compile("\\bNOW\\(|\\bCURRENT_", Pattern.CASE_INSENSITIVE);

  /** A statement, and the number of rows in its result. */
  private record Query(String sql, int rows) {}

  public static void main(String[] args) throws Exception {
    JsonObject facts = JsonParser.parseString(Files.readString(Path.of(args[0]))).getAsJsonObject();
    String token = facts.getAsJsonObject("tokens").get("acme").getAsString();
    String url = "jdbc:arrow-flight-sql://" + facts.get("flight").getAsString() + "/?useEncryption=false&token=" + token;
    Check checks = new Check();
    try (Stream<Path> files = Files.list(Path.of(facts.get("statements").getAsString()))) {
      for (Path file : files.filter(path -> path.getFileName().toString().matches("bi_(?!refused).*\\.slt")).sorted().toList()) {
        checks.add(file.getFileName().toString().replace(".slt", ""), () -> run(url, file));
      }
    }
    checks.run(Arrays.asList(args).subList(1, args.length));
    System.exit(0); // the driver leaves threads running
  }

  /** Runs each statement of a file directly, and then as a prepared statement. */
  private static Object run(String url, Path file) throws SQLException, IOException {
    List<Query> queries = queries(Files.readAllLines(file));
    Check.holds(!queries.isEmpty(), "the file has no statements");
    List<String> failed = new ArrayList<>();
    try (Connection connection = DriverManager.getConnection(url)) {
      for (Query query : queries) {
        try {
          try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(query.sql)) {
            compare(rows, query);
          }
          try (PreparedStatement statement = connection.prepareStatement(query.sql); ResultSet rows = statement.executeQuery()) {
            compare(rows, query);
          }
        } catch (SQLException | RuntimeException | AssertionError error) {
          failed.add(query.sql + "\n" + Check.describe(error));
        }
      }
    }
    Check.holds(failed.isEmpty(), failed.size() + " of " + queries.size() + " failed:\n" + String.join("\n\n", failed));
    return queries.size() + " statements";
  }

  /** Reads all values, and compares the number of rows. */
  private static void compare(ResultSet rows, Query query) throws SQLException {
    int count = 0;
    while (rows.next()) {
      count++;
      for (int column = 1; column <= rows.getMetaData().getColumnCount(); column++) {
        rows.getString(column);
      }
    }
    if (!CLOCK.matcher(query.sql).find()) {
      Check.equal(count, query.rows, "rows");
    }
  }

  /** Parses a file. A query is a line that begins with {@code query}, the statement, {@code ----}, and a line for each row. */
  private static List<Query> queries(List<String> lines) {
    List<Query> found = new ArrayList<>();
    for (int at = 0; at < lines.size(); at++) {
      if (!lines.get(at).startsWith("query ")) {
        continue;
      }
      int middle = at + lines.subList(at, lines.size()).indexOf("----");
      int length = lines.subList(middle, lines.size()).indexOf("");
      int end = length < 0 ? lines.size() : middle + length;
      found.add(new Query(String.join("\n", lines.subList(at + 1, middle)), end - middle - 1));
      at = end;
    }
    return found;
  }
}
