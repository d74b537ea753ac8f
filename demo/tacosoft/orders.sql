-- Converts a change of an order, as Debezium writes it, to a row of `orders`: flattened, renamed, and joined with the
-- restaurant. `row` is the order as JSON after the change, or before the change if the order was deleted.
SELECT
    json_text(m.row, 'restaurant_id') AS restaurant_id,
    json_int(m.row, 'order_id') AS order_id,
    json_text(m.row, 'state') AS state,
    -- The table reads the digits of the text "12.50", without floating point.
    json_text(m.row, 'total') AS total,
    CAST(json_text(m.row, 'placed_at') AS timestamp) AS placed_at,
    -- Debezium encodes the JSON column `details` as a string.
    json_text(json_text(m.row, 'details'), 'channel') AS channel,
    json_text(json_text(m.row, 'details'), 'courier', 'vehicle') AS courier,
    json_int(json_text(m.row, 'details'), 'courier', 'distance_m') AS courier_distance_m,
    json_text_array(json_text(m.row, 'details'), 'items', '*', 'dish') AS items,
    r.name AS restaurant,
    r.city,
    r.time_zone,
    r.cuisine,
    m.deleted,
    m.changed_time AS event_time,
    -- The position of the change in the database's log determines its order and its id. If Debezium sends a change again,
    -- the change has the same id and is stored once.
    m.change_order,
    m.change_id AS event_id
FROM messages m
-- If the restaurant is not known yet, the restaurant's columns are null.
LEFT JOIN restaurants r ON r.restaurant_id = json_text(m.row, 'restaurant_id')
