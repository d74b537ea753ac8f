import com.google.gson.Gson;
import com.google.gson.JsonObject;
import java.io.StringWriter;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;

/** Runs named checks one after another and prints each result as one line of JSON: {name, ok, detail}. */
final class Check {
  /** A run that takes longer than this is considered stuck, and is halted. On a busy machine, a run takes several minutes. */
  private static final long SECONDS_MAX = 1_800;

  private final Map<String, Body> bodies = new LinkedHashMap<>();

  /** A check. It fails by throwing. Its return value is printed as the detail. */
  interface Body {
    Object run() throws Exception;
  }

  /** An action that the server or the driver may refuse. */
  interface Action {
    void run() throws Exception;
  }

  void add(String name, Body body) {
    bodies.put(name, body);
  }

  /** Runs all checks, or only the named ones. */
  void run(java.util.List<String> wanted) {
    Thread watch = new Thread(() -> {
      try {
        Thread.sleep(SECONDS_MAX * 1000);
        System.err.println("a check is stuck: the time limit has passed");
        Runtime.getRuntime().halt(2);
      } catch (InterruptedException ended) {
        Thread.currentThread().interrupt();
      }
    });
    watch.setDaemon(true);
    watch.start();
    bodies.forEach((name, body) -> {
      if (wanted.isEmpty() || wanted.contains(name)) {
        report(name, body);
      }
    });
  }

  private static void report(String name, Body body) {
    JsonObject line = new JsonObject();
    line.addProperty("name", name);
    try {
      Object detail = body.run();
      line.addProperty("ok", true);
      line.addProperty("detail", Objects.toString(detail, ""));
    } catch (Throwable error) {
      line.addProperty("ok", false);
      line.addProperty("detail", describe(error));
    }
    System.out.println(new Gson().toJson(line));
  }

  /** Returns a message with the error, its causes, and the lines of the checks that raised them. */
  static String describe(Throwable error) {
    StringWriter text = new StringWriter();
    for (Throwable each = error; each != null; each = each.getCause()) {
      text.append(each.getClass().getName()).append(": ").append(each.getMessage());
      for (StackTraceElement frame : each.getStackTrace()) {
        if (frame.getClassName().matches("(Jdbc|Types)Check.*")) {
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

  /** Fails unless the condition is true. */
  static void holds(boolean truth, Object what) {
    if (!truth) {
      throw new AssertionError(what);
    }
  }

  /** Runs an action that the server or the driver must refuse. Returns the exception. */
  static Exception refused(Action action, Object what) {
    try {
      action.run();
    } catch (Exception refusal) {
      return refusal;
    }
    throw new AssertionError(what + " should have been refused");
  }
}
