-- TacoSoft's own database: restaurants take orders, and an order changes its state until it is delivered or cancelled.

-- Filled from restaurants.csv.
CREATE TABLE restaurants (
    restaurant_id text PRIMARY KEY,
    name          text NOT NULL,
    city          text NOT NULL,
    time_zone     text NOT NULL,
    cuisine       text NOT NULL
);

CREATE TABLE orders (
    order_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    restaurant_id text NOT NULL REFERENCES restaurants,
    state         text NOT NULL DEFAULT 'placed'
                  CHECK (state IN ('placed', 'cooking', 'ready', 'delivered', 'cancelled')),
    total         numeric(10, 2) NOT NULL,
    placed_at     timestamptz NOT NULL DEFAULT now(),
    -- {"channel", "courier": {"vehicle", "distance_m"}, "items": [{"dish", "count", "price"}]}
    details       jsonb NOT NULL
);

-- A change is sent with the whole row as it was. Without this, a deleted order would name its key only, and nobody could tell
-- whose it had been.
ALTER TABLE orders REPLICA IDENTITY FULL;
