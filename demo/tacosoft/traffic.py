"""Simulates orders at TacoSoft's restaurants: orders are placed, cooked and delivered, and a few are cancelled or deleted.

Takes a connection to PostgreSQL, and inserts, updates and deletes rows of `orders`. This module does not use Glasshouse.
"""

import json
import random

# The dishes and their prices.
DISHES = {
    "al pastor": "3.50", "carnitas": "3.75", "baja fish": "4.25", "barbacoa": "4.50", "nopales": "3.25",
    "quesadilla": "6.90", "elote": "4.00", "churros": "5.20", "agua fresca": "2.80",
}
# The restaurants, with the relative number of orders of each.
RESTAURANTS = {"fuego": 10, "verde": 5, "luna": 4, "bahia": 3, "norte": 2, "sakura": 1}
# The state that follows each state. At each step, some orders are cancelled or deleted instead.
NEXT = {"placed": "cooking", "cooking": "ready", "ready": "delivered"}
CANCELLED_SHARE = 0.06
DELETED_SHARE = 0.02
# The maximum number of open orders. At this number, no new orders are placed.
OPEN_MAX = 400


class Traffic:
    """Makes random changes to orders. The changes are deterministic for a given seed."""

    def __init__(self, connection, seed=1):
        self.connection, self.random = connection, random.Random(seed)

    def place_history(self, count):
        """Inserts delivered orders of the last week."""
        rows = [(*self._order(), self.random.random() * 7 * 24) for _ in range(count)]
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO orders (restaurant_id, total, details, state, placed_at)"
                " VALUES (%s, %s, %s, 'delivered', now() - %s * interval '1 hour')", rows,
            )

    def place(self):
        """Inserts a new order and returns its id."""
        placed = self.connection.execute(
            "INSERT INTO orders (restaurant_id, total, details) VALUES (%s, %s, %s) RETURNING order_id", self._order(),
        )
        return placed.fetchone()[0]

    def advance(self, order):
        """Moves an order to its next state, or cancels or deletes it."""
        found = self.connection.execute("SELECT state FROM orders WHERE order_id = %s", [order]).fetchone()
        if found is None or found[0] not in NEXT:
            return
        chance = self.random.random()
        if chance < DELETED_SHARE:
            self.connection.execute("DELETE FROM orders WHERE order_id = %s", [order])
            return
        state = "cancelled" if chance < DELETED_SHARE + CANCELLED_SHARE else NEXT[found[0]]
        self.connection.execute("UPDATE orders SET state = %s WHERE order_id = %s", [state, order])

    def step(self):
        """Makes one change. Orders are placed and completed at about the same rate, so the number of open orders is stable."""
        if self.random.random() < 0.28:
            is_full = "SELECT count(*) >= %s FROM orders WHERE state IN ('placed', 'cooking', 'ready')"
            if not self.connection.execute(is_full, [OPEN_MAX]).fetchone()[0]:
                return self.place()
        # Advance one of the oldest open orders.
        oldest = self.connection.execute(
            "SELECT order_id FROM orders WHERE state IN ('placed', 'cooking', 'ready') ORDER BY order_id LIMIT 60",
        ).fetchall()
        return self.advance(self.random.choice(oldest)[0]) if oldest else self.place()

    def _order(self):
        restaurant = self.random.choices(list(RESTAURANTS), RESTAURANTS.values())[0]
        dishes = self.random.sample(sorted(DISHES), self.random.randint(1, 3))
        items = [{"dish": dish, "count": self.random.randint(1, 3), "price": DISHES[dish]} for dish in dishes]
        total = sum(item["count"] * round(float(item["price"]) * 100) for item in items) / 100
        details = {"channel": self.random.choice(["app", "web", "phone"]), "items": items}
        if self.random.random() < 0.6:
            vehicle = self.random.choice(["bike", "scooter", "car"])
            details["courier"] = {"vehicle": vehicle, "distance_m": self.random.randint(200, 6000)}
        return restaurant, total, json.dumps(details)
