"""Guests of TacoSoft's restaurants: they order, the kitchens cook, and now and then an order is cancelled or deleted.

In: a connection to PostgreSQL. Out: rows of `orders` that come, change and go; nothing else knows about Glasshouse here.
"""

import json
import random

# What restaurants sell, and for how much.
DISHES = {
    "al pastor": "3.50", "carnitas": "3.75", "baja fish": "4.25", "barbacoa": "4.50", "nopales": "3.25",
    "quesadilla": "6.90", "elote": "4.00", "churros": "5.20", "agua fresca": "2.80",
}
# How busy a restaurant is, against the others.
RESTAURANTS = {"fuego": 10, "verde": 5, "luna": 4, "bahia": 3, "norte": 2, "sakura": 1}
# What becomes of an order, and how likely that is: what is left stays as it is for now.
NEXT = {"placed": "cooking", "cooking": "ready", "ready": "delivered"}
CANCELLED_SHARE = 0.06
DELETED_SHARE = 0.02
# Orders that are open at once: then kitchens only cook.
OPEN_MAX = 400


class Traffic:
    """Orders by chance, the same for the same seed."""

    def __init__(self, connection, seed=1):
        self.connection, self.random = connection, random.Random(seed)

    def place_history(self, count):
        """Delivered orders of the last week."""
        rows = [(*self._order(), self.random.random() * 7 * 24) for _ in range(count)]
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO orders (restaurant_id, total, details, state, placed_at)"
                " VALUES (%s, %s, %s, 'delivered', now() - %s * interval '1 hour')", rows,
            )

    def place(self):
        """One new order; returns its id."""
        placed = self.connection.execute(
            "INSERT INTO orders (restaurant_id, total, details) VALUES (%s, %s, %s) RETURNING order_id", self._order(),
        )
        return placed.fetchone()[0]

    def advance(self, order):
        """One order goes on: to its next state, cancelled, or deleted as if it had never been."""
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
        """One change: as many orders end as come, so that the open ones stay about the same number."""
        if self.random.random() < 0.28:
            is_full = "SELECT count(*) >= %s FROM orders WHERE state IN ('placed', 'cooking', 'ready')"
            if not self.connection.execute(is_full, [OPEN_MAX]).fetchone()[0]:
                return self.place()
        # An old one more likely than a new one, as kitchens do it.
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
