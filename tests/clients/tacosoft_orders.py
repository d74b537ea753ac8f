"""Changes TacoSoft orders for the tests: `tacosoft_orders.py PORT STEPS SEED` makes STEPS changes, one after another.

The first call also creates a trigger that writes each change to a journal table in PostgreSQL. The tests compare the history in
the lake with this journal.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "demo/tacosoft"))

import services  # noqa: E402: the demo is not an installed package
from traffic import Traffic  # noqa: E402

# Each existing order has one version, from Debezium's snapshot.
JOURNAL = """
CREATE TABLE journal (
    number bigint GENERATED ALWAYS AS IDENTITY, restaurant_id text, order_id bigint, state text, deleted bool
);
INSERT INTO journal (restaurant_id, order_id, state, deleted)
    SELECT restaurant_id, order_id, state, false FROM orders ORDER BY order_id;
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE changed orders := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO journal (restaurant_id, order_id, state, deleted)
        VALUES (changed.restaurant_id, changed.order_id, changed.state, TG_OP = 'DELETE');
    RETURN NULL;
END $$;
CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION keep();
"""


def main():
    """Makes the changes."""
    port, steps, seed = (int(word) for word in sys.argv[1:])
    with services.connect(port) as connection:
        if connection.execute("SELECT to_regclass('journal') IS NULL").fetchone()[0]:
            connection.execute(JOURNAL)
        traffic = Traffic(connection, seed)
        for _ in range(steps):
            traffic.step()


if __name__ == "__main__":
    main()
