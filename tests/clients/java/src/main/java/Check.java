import com.google.gson.Gson;
import com.google.gson.JsonObject;
import java.io.StringWriter;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;

/** Named checks, run one after another, each told as one line of JSON: {name, ok, detail}. */
final class Check {
  /** A harness that takes longer hangs: it then ends. */
  private static final long SECONDS_MAX = 400;

  private final Map<String, Body> bodies = new LinkedHashMap<>();

  /** A check; it fails by throwing. Its answer is shown as the detail. */
  interface Body {
    Object run() throws Exception;
  }

  /** Something that may be refused. */
  interface Action {
    void run() throws Exception;
  }

  void add(String name, Body body) {
    bodies.put(name, body);
  }

  /** Runs all checks, or the wanted ones. */
  void run(java.util.List<String> wanted) {
    Thread watch = new Thread(() -> {
      try {
        Thread.sleep(SECONDS_MAX * 1000);
        System.err.println("a check hangs");
        Runtime.getRuntime().halt(2);
      } catch (InterruptedException ended) {
        Thread.currentThread().interrupt();
      }
    });
    watch.setDaemon(true);
    watch.start();
    bodies.forEach((name, body) -> {
      if (wanted.isEmpty() || wanted.contains(name)) {
        tell(name, body);
      }
    });
  }

  private static void tell(String name, Body body) {
    JsonObject line = new JsonObject();
    line.addProperty("name", name);
    try {
      Object detail = body.run();
      line.addProperty("ok", true);
      line.addProperty("detail", Objects.toString(detail, ""));
    } catch (Throwable fault) {
      line.addProperty("ok", false);
      line.addProperty("detail", describe(fault));
    }
    System.out.println(new Gson().toJson(line));
  }

  /** A fault with its causes and our own lines. */
  static String describe(Throwable fault) {
    StringWriter text = new StringWriter();
    for (Throwable each = fault; each != null; each = each.getCause()) {
      text.append(each.getClass().getName()).append(": ").append(each.getMessage());
      for (StackTraceElement frame : each.getStackTrace()) {
        if (frame.getClassName().startsWith("JdbcCheck")) {
          text.append(" (line ").append(String.valueOf(frame.getLineNumber())).append(")");
          break;
        }
      }
      text.append(each.getCause() == null ? "" : "; caused by ");
    }
    return text.toString();
  }

  /** Fails unless both are equal. */
  static void equal(Object actual, Object expected, Object what) {
    if (!Objects.equals(actual, expected)) {
      throw new AssertionError(what + ": " + actual + " instead of " + expected);
    }
  }

  /** Fails unless it holds. */
  static void holds(boolean truth, Object what) {
    if (!truth) {
      throw new AssertionError(what);
    }
  }

  /** Runs what must be refused by the server or the driver, and returns how. */
  static Exception refused(Action action, Object what) {
    try {
      action.run();
    } catch (Exception refusal) {
      return refusal;
    }
    throw new AssertionError(what + " should have been refused");
  }
}
