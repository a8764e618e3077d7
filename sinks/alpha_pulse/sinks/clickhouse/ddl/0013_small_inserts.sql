-- Live trades come in many small inserts, and making the two projections of each was a third of their cost. They are made when
-- parts are merged, which small parts are within seconds; until then a query reads the rows themselves, which are few.
ALTER TABLE {{database}}.trades_log {{on_cluster}} MODIFY SETTING materialize_projections_on_insert = 0, materialize_projections_on_merge = 1;
