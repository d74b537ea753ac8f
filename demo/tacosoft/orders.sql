-- A change of an order, as Debezium writes it, becomes a row of `orders`: flattened, renamed, in cents, and with what is
-- known of the restaurant. `row` is the order as JSON: as it is now, and for a deleted one as it was last.
SELECT
    json_text(m.row, 'restaurant_id') AS restaurant_id,
    json_int(m.row, 'order_id') AS order_id,
    json_text(m.row, 'state') AS state,
    -- "12.50" becomes 1250 without a detour over floating point.
    CAST(CAST(json_text(m.row, 'total') AS decimal(12, 2)) * 100 AS bigint) AS total_cents,
    CAST(json_text(m.row, 'placed_at') AS timestamp) AS placed_at,
    -- `details` is a JSON column: it comes as a text inside the JSON.
    json_text(json_text(m.row, 'details'), 'channel') AS channel,
    json_text(json_text(m.row, 'details'), 'courier', 'vehicle') AS courier,
    json_int(json_text(m.row, 'details'), 'courier', 'distance_m') AS courier_distance_m,
    json_text(json_text(m.row, 'details'), 'items', 0, 'dish') AS first_dish,
    CAST(cardinality(json_array(json_text(m.row, 'details'), 'items')) AS bigint) AS dishes,
    r.name AS restaurant,
    r.city,
    r.time_zone,
    r.cuisine,
    m.position,
    m.deleted,
    m.changed_time AS event_time,
    -- A change that Debezium sends again keeps its id, and counts once. Orders of the first snapshot share their position.
    concat(json_text(m.row, 'order_id'), '@', CAST(m.position AS text)) AS event_id
FROM messages m
-- An order of a restaurant that is not known yet is kept, without the rest.
LEFT JOIN restaurants r ON r.restaurant_id = json_text(m.row, 'restaurant_id')
