-- The schema of TacoSoft's database: restaurants, and orders whose state changes until they are delivered or cancelled.

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

-- A change contains the whole previous row. By default it would contain only the key, so the change of a deleted order would
-- not name its restaurant.
ALTER TABLE orders REPLICA IDENTITY FULL;
